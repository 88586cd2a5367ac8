# Both images can be replaced by a mirror's: docker build --build-arg BUILDER=… --build-arg RUNTIME=…
ARG BUILDER=rust:1.95-bookworm
ARG RUNTIME=debian:bookworm-slim

# The builder's own gcc, make and perl are what librdkafka, OpenSSL and SQLite are built with.
FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# The caches outlive the build, so that a change of ours does not build the dependencies again; the
# program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package herald \
    && install -D target/release/herald /out/herald

# Of the same Debian release as the builder: the program is linked to its C library and its zlib.
FROM ${RUNTIME}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/herald /usr/local/bin/
# By number, so that an orchestrator sees that it is not root without looking into the image.
USER 10001:10001
# Inside a container, loopback would be nobody's.
ENV HERALD_API_LISTEN=0.0.0.0:8000 HERALD_ADMIN_LISTEN=0.0.0.0:9464
EXPOSE 8000 9464
ENTRYPOINT ["herald"]
