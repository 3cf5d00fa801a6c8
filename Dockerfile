# syntax=docker/dockerfile:1

FROM python:3.11-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
# Dependencies first: this layer is rebuilt only when they change.
COPY pyproject.toml uv.lock ./
# build_aware is not installed: Python finds it beside agent.py. An installed copy would be a second
# one, and the build id is a hash of the first.
RUN uv sync --locked --no-default-groups --group agent --no-install-project
# These are all files of the build id: [tool.build-aware] in pyproject.toml lists them.
COPY agent.py Dockerfile ./
COPY agent ./agent
COPY build_aware ./build_aware
RUN /app/.venv/bin/python -m compileall -q agent build_aware

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --no-install-recommends -y ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home agent
WORKDIR /app
COPY --from=build --chown=agent:agent /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
# Overrides the content hash: docker build --build-arg AGENT_BUILD_ID=2026.11.23-1 .
ARG AGENT_BUILD_ID=""
ENV AGENT_BUILD_ID=$AGENT_BUILD_ID
USER agent
# LiveKit's health check, and /ready, /status and /metrics.
EXPOSE 8081 8082
# Python is PID 1 and gets the stop signal itself: no shell, no `uv run` in between.
CMD ["python", "agent.py", "start"]
