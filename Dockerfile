# The web service in a container, without TensorFlow. The classifier stays outside, in a folder:
#
#   docker build -t pets .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -p 8000:8000 \
#     -v "$PWD/runs/first/bundle:/bundle:ro" pets
#
# docs/serving.md has more.

FROM python:3.12-slim AS packages
COPY requirements-serve.txt ./
# --only-binary: no package runs a program of its own here. pip itself is not needed later.
RUN python -m venv /packages \
    && /packages/bin/pip install --no-cache-dir --only-binary :all: --require-hashes \
        -r requirements-serve.txt \
    && /packages/bin/pip uninstall --yes pip

FROM python:3.12-slim
COPY --from=packages /packages /packages
WORKDIR /service
COPY app app
# The system is read-only, so what Python compiles is written now.
RUN /packages/bin/python -m compileall -q app
USER 10001:10001
ENV PATH=/packages/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD \
    ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "app", "serve", "--host", "0.0.0.0", "--bundle", "/bundle"]
