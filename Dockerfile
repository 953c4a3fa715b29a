# The embedded benchmark in a container: docker build -t inflation . && docker run --rm -v $PWD/out:/inflation/work_dirs inflation
# On a GPU: docker run --gpus all ... (torch brings CUDA's libraries; the host has the driver). Without one, a smaller image:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t inflation .
FROM python:3.11-slim

RUN apt-get update && apt-get install -y --no-install-recommends git make libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /inflation
ARG TORCH_INDEX=""
COPY . .
RUN python -m venv .venv \
    && if [ -n "$TORCH_INDEX" ]; then .venv/bin/pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"; fi \
    && PIP_NO_CACHE_DIR=1 make .venv/.ready
CMD ["make", "grid"]
