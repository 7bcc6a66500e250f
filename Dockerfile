# train.py and generate.py for an ordinary user, whatever its number: docs/containers.md.
FROM python:3.11.14-slim-trixie

# What it computes on: cpu, cuda or xpu.
ARG DEVICE=cpu
# Where a torch without CUDA comes from, which is 3 GB less.
ARG CPU_TORCH=https://download.pytorch.org/whl/cpu

# Triton makes the kernels of a GPU with gcc, and libze1 finds Intel's driver. Not pinned (DL3008): Debian keeps only
# the last build of a package, and a pinned one would be gone with its next security fix.
# hadolint ignore=DL3008
RUN if [ "$DEVICE" != cpu ]; then \
      apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libze1 && \
      rm -rf /var/lib/apt/lists/*; \
    fi

WORKDIR /app
COPY requirements.txt requirements-export.txt requirements-openvino.txt requirements-serve.txt requirements-xpu.txt ./
RUN case "$DEVICE" in \
      cpu) pip install --no-cache-dir --index-url="$CPU_TORCH" "$(grep '^torch==' requirements.txt)" ;; \
      cuda) ;; \
      xpu) pip install --no-cache-dir -r requirements-xpu.txt ;; \
      *) echo "DEVICE=$DEVICE: cpu, cuda, xpu 가운데 하나를 주세요." >&2 && exit 2 ;; \
    esac && \
    pip install --no-cache-dir -r requirements.txt -r requirements-serve.txt -r requirements-export.txt \
      -r requirements-openvino.txt

COPY train.py generate.py LICENSE ./
COPY gpt2_korean/ gpt2_korean/
COPY data/ data/
# Whoever --user names may read all of it, whatever umask it was cloned under, and may write where models, logs and what
# the libraries keep go, and nowhere else.
RUN chmod -R a+rX . && python -m compileall -q gpt2_korean && install --directory --mode=1777 fine_tuned_models logs /cache
# A user without a name or a home is asked for both by libraries.
ENV USER=gpt2-korean HOME=/cache HF_HOME=/cache/huggingface
VOLUME ["/app/fine_tuned_models", "/app/logs", "/cache"]

USER 1000:1000
EXPOSE 7860
# train.py saves and leaves with code 75; it is Python itself that hears it, no shell before it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python"]
CMD ["generate.py", "--help"]
