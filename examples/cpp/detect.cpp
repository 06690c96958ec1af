// Compute a photo's anomaly map with a file of `xenomask export --format onnx`, by ONNX Runtime alone.
//
//   g++ -std=c++17 -O2 -I$ORT/include examples/cpp/detect.cpp -L$ORT/lib -lonnxruntime -Wl,-rpath,$ORT/lib -o detect
//   ./detect nano.onnx street.ppm map.pfm     # the raw scores, float32; a higher one is more anomalous

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

int main(int count, char** words) try {
  if (count != 4) throw std::runtime_error("usage: detect MODEL.onnx PHOTO.ppm MAP.pfm");
  const std::string photo = words[2], map = words[3];

  std::ifstream file(photo, std::ios::binary);
  std::string kind;
  int64_t width = 0, height = 0, largest = 0;
  file >> kind >> width >> height >> largest;
  if (kind != "P6" || largest != 255 || std::min(width, height) < 1 || std::max(width, height) > 65535)
    throw std::runtime_error(photo + " is no binary 8-bit PPM (P6) without comments");
  file.get();  // one byte ends the header
  std::vector<uint8_t> rgb(3 * width * height);
  if (!file.read(reinterpret_cast<char*>(rgb.data()), rgb.size())) throw std::runtime_error(photo + " is cut");

  Ort::Env env(ORT_LOGGING_LEVEL_WARNING);
  Ort::Session session(env, words[1], Ort::SessionOptions());
  const auto taken = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // 1, H, W, 3; -1: any
  if (taken.size() != 4 || taken[3] != 3) throw std::runtime_error(std::string(words[1]) + " takes no photo");
  if ((taken[1] > 0 && taken[1] != height) || (taken[2] > 0 && taken[2] != width))
    throw std::runtime_error(photo + " is not " + std::to_string(taken[2]) + "x" + std::to_string(taken[1]) +
                             ": resize it, or export with --dynamic");

  const int64_t shape[] = {1, height, width, 3};
  Ort::AllocatorWithDefaultOptions memory;
  const auto input = Ort::Value::CreateTensor<uint8_t>(memory.GetInfo(), rgb.data(), rgb.size(), shape, 4);
  const char *in[] = {"image"}, *out[] = {"score"};
  const auto found = session.Run(Ort::RunOptions(), in, &input, 1, out, 1);
  const float* score = found[0].GetTensorData<float>();

  std::ofstream written(map, std::ios::binary);
  written << "Pf\n" << width << ' ' << height << "\n-1\n";  // PFM: little-endian, the lowest row first
  for (int64_t y = height - 1; y >= 0; --y)
    written.write(reinterpret_cast<const char*>(score + y * width), width * sizeof(float));
  if (!written.flush()) throw std::runtime_error("cannot write " + map);

  const auto [least, most] = std::minmax_element(score, score + width * height);
  const long x = (most - score) % width, y = (most - score) / width;
  std::printf("score %.3f .. %.3f, the highest at (%ld, %ld) -> %s\n", *least, *most, x, y, map.c_str());
} catch (const std::exception& error) {
  std::fprintf(stderr, "detect: %s\n", error.what());
  return 2;
}
