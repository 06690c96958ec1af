# The service in a container: python -m build --wheel (or pip wheel . --no-deps -w dist), then docker build -t xenomask .
FROM python:3.11-slim
COPY dist/xenomask-*.whl /tmp/
# PyTorch without CUDA; another mirror: --build-arg TORCH_INDEX=...
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
      "$(ls /tmp/xenomask-*.whl)[serve,openvino]" && rm /tmp/xenomask-*.whl \
 && useradd --create-home xenomask
USER xenomask
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"
# one replica; more by docker run ... xenomask serve --host 0.0.0.0 --replicas 4; Ray wants --shm-size 1g
CMD ["xenomask", "serve", "--host", "0.0.0.0"]
