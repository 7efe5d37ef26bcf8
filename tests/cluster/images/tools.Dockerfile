# Something to call with, for the scenarios.
FROM scratch
COPY . /
USER 65534:65534
ENTRYPOINT ["/bin/sleep", "infinity"]
