# syntax=docker.io/docker/dockerfile:1
# SPDX-License-Identifier: Apache-2.0
#
# One image per binary: docker build --target manager|tenant-apiserver|agent|kubectl-hosts.
# See `make image`.

# The builder runs as itself, and compiles for the target. Its name is whole: podman asks
# no registry that is not named.
FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26.10 AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY controllers controllers
COPY internal internal
COPY webhook webhook
# The flags are those of hack/build-static.sh, by which tests make the same binaries.
COPY hack/build-static.sh hack/build-static.sh
# The revision of the sources, which are not here as a repository: see hack/image.sh.
ARG REVISION
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH REVISION=$REVISION hack/build-static.sh /out

# Nothing but the binary: it needs no shell, no libraries, no users and no files, and
# takes the API server's authority from the service account.
FROM scratch AS manager
COPY --from=build /out/manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]

FROM scratch AS tenant-apiserver
COPY --from=build /out/tenant-apiserver /tenant-apiserver
USER 65532:65532
ENTRYPOINT ["/tenant-apiserver"]

FROM scratch AS agent
COPY --from=build /out/agent /agent
USER 65532:65532
ENTRYPOINT ["/agent"]

FROM scratch AS kubectl-hosts
COPY --from=build /out/kubectl-hosts /kubectl-hosts
USER 65532:65532
ENTRYPOINT ["/kubectl-hosts"]
