# The command line, for jobs in a cluster. See sidecar.Dockerfile for where its parts come from.
ARG BASE=debian:12-slim
FROM ${BASE} AS base

FROM scratch
ARG TARGETARCH=amd64
COPY --from=base /usr/lib/*-linux-gnu/ld-linux-*.so.* /lib64/
COPY --from=base /usr/lib/*-linux-gnu/ld-linux-*.so.* /lib/
COPY --from=base /usr/lib/*-linux-gnu/libc.so.6 /usr/lib/*-linux-gnu/libm.so.6 /usr/lib/*-linux-gnu/libgcc_s.so.1 /lib/
COPY ${TARGETARCH}/bin/sconce /usr/local/bin/
COPY ${TARGETARCH}/sbom/sconce/ /usr/share/sbom/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/sconce"]
