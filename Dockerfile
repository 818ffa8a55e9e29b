# One image for the server, the worker and the migration (compose.yaml says which). No Node and no development tool in the last stage.

FROM node:20-slim AS inbox
WORKDIR /build
COPY inbox/ ./
RUN npm ci --ignore-scripts && npm run build

FROM python:3.11-slim AS packages
COPY requirements.runtime.lock ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.runtime.lock

FROM python:3.11-slim
RUN groupadd --gid 10001 paythread && useradd --uid 10001 --gid 10001 --no-create-home paythread
WORKDIR /app
COPY --from=packages /venv /venv
COPY . ./
COPY --from=inbox /build/dist inbox/dist
# The server may not write here, so without this each start would compile the code again.
RUN python -m compileall -q .
# SQLite's file, where no DATABASE_URL says otherwise, goes to var/: the only folder that the server may write to.
RUN mkdir -p var && chown paythread:paythread var
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=8000
USER paythread
EXPOSE 8000
CMD ["python", "cli.py", "serve"]
