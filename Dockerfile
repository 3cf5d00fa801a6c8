# What the image is built on, and what it runs on. Any glibc image will do: both need the same
# Python, 3.11 or later, at the same path; the first needs Python's venv, and the second CA
# certificates.
ARG BUILD_BASE=python:3.11.14-slim-bookworm
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BUILD_BASE} AS dependencies
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never \
    UV_PROJECT_ENVIRONMENT=/app/.venv HF_HOME=/app/models
RUN python3 -m venv /uv && /uv/bin/pip install --no-cache-dir uv==0.13.9
WORKDIR /project
COPY pyproject.toml uv.lock ./
# build_aware is not installed: Python finds it beside agent.py. An installed copy would be a second
# one, and the build id is a hash of the first.
RUN /uv/bin/uv sync --locked --no-default-groups --group agent --no-install-project \
    && chmod -R go-w /app
# The model files of the plugins: nothing is fetched when a container starts.
RUN /app/.venv/bin/python -m livekit.agents download-files

FROM ${BUILD_BASE} AS code
WORKDIR /app
# These are all files of the build id: [tool.build-aware] in pyproject.toml lists them.
COPY agent.py Dockerfile pyproject.toml uv.lock ./
COPY agent ./agent
COPY build_aware ./build_aware
# Whatever their rights in the checkout are: all may read them, and nobody but root may write.
RUN chmod -R u=rwX,go=rX . && python3 -m compileall -q agent build_aware

FROM ${BASE}
ARG BASE
LABEL org.opencontainers.image.title="build-aware agent" \
      org.opencontainers.image.description="A LiveKit voice agent that knows its build and leaves cleanly" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"
# The user owns no file, and can write nowhere but in /tmp.
RUN echo 'agent:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'agent:x:10001:' >> /etc/group \
    && find / -xdev -type d -perm -o=w ! -path /tmp -exec chmod o-w {} +
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/app/models
USER 10001:10001
# LiveKit's health check, and /ready, /status and /metrics.
EXPOSE 8081 8082
# It is 200 while the worker drains and while LiveKit is away: then nobody should restart it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os; \
port = int(os.environ.get('AGENT_HEALTH_PORT') or 8081); \
livekit = http.client.HTTPConnection('127.0.0.1', port, timeout=5); \
livekit.request('GET', '/'); \
raise SystemExit(livekit.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
# Python is PID 1 and gets the stop signal itself: no shell, no `uv run` in between.
CMD ["python", "agent.py", "start"]
# Two layers: where only code has changed, only the second one is new, and it is small.
COPY --from=dependencies /app /app
COPY --from=code /app /app
# Overrides the content hash: docker build --build-arg AGENT_BUILD_ID=2026.11.23-1 .
ARG AGENT_BUILD_ID=""
ENV AGENT_BUILD_ID=$AGENT_BUILD_ID
