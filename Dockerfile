# docker build -t coconut-lm .
# docker run --rm -v "$PWD:/here" --user "$(id -u):$(id -g)" coconut-lm quickstart
#
# For GPUs, with the torch of PyPI, which brings CUDA:
# docker build -t coconut-lm:gpu --build-arg TORCH_INDEX=https://pypi.org/simple .
# docker run --rm --gpus all --ipc host -v "$PWD:/here" --user "$(id -u):$(id -g)" coconut-lm:gpu run x.yaml
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/coconut-lm/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/coconut-lm
WORKDIR /source
COPY constraints.txt ./
# A layer of its own: it is large, and changes less often than the code does.
RUN pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
RUN pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt .

FROM ${BASE}
# Whoever runs it may be anyone, so anyone may write at home and where it starts.
RUN useradd --create-home --uid 1000 coconut && install -d -m 1777 /here && chmod 1777 /home/coconut
COPY --from=build /opt/coconut-lm /opt/coconut-lm
ENV PATH=/opt/coconut-lm/bin:$PATH HOME=/home/coconut PYTHONUNBUFFERED=1
USER 1000
WORKDIR /here
ENTRYPOINT ["coconut-lm"]
CMD ["--help"]
