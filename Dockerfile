# SPDX-License-Identifier: Apache-2.0
#
# One image per command, by a container engine: see hack/image.sh, which sets REVISION and the
# labels that depend on the sources. Without an engine hack/image makes the same images;
# a test compares the two.

# The builder runs as itself, and compiles for the target. Its name is whole: podman asks
# no registry that is not named.
FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26.10 AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
# The caches are kept by the engine, so that a changed line costs no whole build.
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY api api
COPY cmd cmd
COPY controllers controllers
COPY internal internal
COPY webhook webhook
# The flags are those of hack/build-static.sh, by which tests make the same binaries.
COPY hack/build-static.sh hack/build-static.sh
# The revision of the sources, which are not here as a repository.
ARG REVISION
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH REVISION=$REVISION hack/build-static.sh /out

# Nothing but the binary: it needs no shell, no libraries, no users and no files, and
# takes the API server's authority from the service account.
FROM scratch AS base
LABEL org.opencontainers.image.source="https://hoststatus.dev/hoststatus" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532

FROM base AS manager
LABEL org.opencontainers.image.title="hoststatus manager"
COPY --from=build /out/manager /manager
ENTRYPOINT ["/manager"]

FROM base AS tenant-apiserver
LABEL org.opencontainers.image.title="hoststatus tenant-apiserver"
COPY --from=build /out/tenant-apiserver /tenant-apiserver
ENTRYPOINT ["/tenant-apiserver"]

FROM base AS nova-api
LABEL org.opencontainers.image.title="hoststatus nova-api"
COPY --from=build /out/nova-api /nova-api
ENTRYPOINT ["/nova-api"]

FROM base AS notifier
LABEL org.opencontainers.image.title="hoststatus notifier"
COPY --from=build /out/notifier /notifier
ENTRYPOINT ["/notifier"]

FROM base AS agent
LABEL org.opencontainers.image.title="hoststatus agent"
COPY --from=build /out/agent /agent
ENTRYPOINT ["/agent"]

FROM base AS kubectl-hosts
LABEL org.opencontainers.image.title="hoststatus kubectl-hosts"
COPY --from=build /out/kubectl-hosts /kubectl-hosts
ENTRYPOINT ["/kubectl-hosts"]

FROM base AS kubectl-servers
LABEL org.opencontainers.image.title="hoststatus kubectl-servers"
COPY --from=build /out/kubectl-servers /kubectl-servers
ENTRYPOINT ["/kubectl-servers"]
