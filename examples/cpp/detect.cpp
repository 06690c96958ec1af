// Compute a photo's anomaly map with a file of `xenomask export --format onnx`, by ONNX Runtime alone.
//
//   g++ -std=c++17 -O2 -I$ORT/include examples/cpp/detect.cpp -L$ORT/lib -lonnxruntime -Wl,-rpath,$ORT/lib -o detect
//   ./detect nano.onnx street.ppm map.pgm     # grey over the detector's colour range; map.pfm: raw scores

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Photo {
  int64_t width, height;
  std::vector<uint8_t> rgb;
};

std::string next_word(std::istream& file) {
  std::string word;
  while (file >> word && word[0] == '#') std::getline(file, word);  // a comment
  return word;
}

Photo read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const bool ppm = next_word(file) == "P6";
  const int64_t width = std::atol(next_word(file).c_str()), height = std::atol(next_word(file).c_str());
  if (!ppm || width < 1 || height < 1 || next_word(file) != "255")
    throw std::runtime_error(path + " is no binary 8-bit PPM (P6)");
  Photo photo{width, height, std::vector<uint8_t>(width * height * 3)};
  file.get();  // one byte ends the header
  if (!file.read(reinterpret_cast<char*>(photo.rgb.data()), photo.rgb.size()))
    throw std::runtime_error(path + " is cut");
  return photo;
}

void write_map(const std::string& path, const float* score, const Photo& size, float low, float high) {
  std::ofstream file(path, std::ios::binary);
  const bool raw = path.size() > 4 && path.substr(path.size() - 4) == ".pfm";
  file << (raw ? "Pf\n" : "P5\n") << size.width << ' ' << size.height << (raw ? "\n-1\n" : "\n255\n");
  for (int64_t y = 0; y < size.height; ++y) {  // PFM: the lowest row first, little-endian
    const float* row = score + (raw ? size.height - 1 - y : y) * size.width;
    if (raw) file.write(reinterpret_cast<const char*>(row), size.width * sizeof(float));
    else for (int64_t x = 0; x < size.width; ++x)
      file.put(static_cast<char>(255 * std::clamp((row[x] - low) / (high - low), 0.f, 1.f)));
  }
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

int main(int count, char** words) try {
  if (count != 4) throw std::runtime_error("usage: detect MODEL.onnx PHOTO.ppm MAP.pgm|MAP.pfm");
  Photo photo = read_ppm(words[2]);
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING);
  Ort::Session session(env, words[1], Ort::SessionOptions());
  Ort::AllocatorWithDefaultOptions memory;
  const auto about = session.GetModelMetadata().LookupCustomMetadataMapAllocated("xenomask", memory);
  const std::string text = about ? about.get() : "";
  float low = 0, high = 1;
  if (const auto at = text.find("\"scale\""); at == std::string::npos || text.find("\"map\"") == std::string::npos ||
      std::sscanf(text.c_str() + at, "\"scale\" : [ %f , %f", &low, &high) != 2)
    throw std::runtime_error(std::string(words[1]) + " is no map file of xenomask export");
  const auto taken = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // 1, H, W, 3; -1: any
  if ((taken[1] > 0 && taken[1] != photo.height) || (taken[2] > 0 && taken[2] != photo.width))
    throw std::runtime_error(std::string(words[2]) + " is not " + std::to_string(taken[2]) + "x" +
                             std::to_string(taken[1]) + ": resize it, or export with --dynamic");

  const int64_t shape[] = {1, photo.height, photo.width, 3};
  const auto input =
      Ort::Value::CreateTensor<uint8_t>(memory.GetInfo(), photo.rgb.data(), photo.rgb.size(), shape, 4);
  const char *in[] = {"image"}, *out[] = {"score"};
  const auto found = session.Run(Ort::RunOptions(), in, &input, 1, out, 1);
  const float* score = found[0].GetTensorData<float>();
  const auto [least, most] = std::minmax_element(score, score + photo.width * photo.height);
  const int64_t at = most - score;
  write_map(words[3], score, photo, low, high);
  std::printf("score %.3f .. %.3f, the highest at (%ld, %ld) -> %s\n", *least, *most, long(at % photo.width),
              long(at / photo.width), words[3]);
} catch (const std::exception& error) {
  std::fprintf(stderr, "detect: %s\n", error.what());
  return 2;
}
