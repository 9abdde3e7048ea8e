# All images for `docker buildx bake` (engine 23 or newer). `make images` sets the variables and uses this file if the engine supports it.
# Without `make images`, set the variables yourself: TAG="0.1.0-$(git rev-parse --short=12 HEAD)" docker buildx bake

variable "REGISTRY" { default = "" }
variable "VERSION" { default = "unknown" }
variable "REVISION" { default = "unknown" }
variable "SOURCE" { default = "unknown" }
variable "TAG" { default = "latest" }
variable "BASE_IMAGE" { default = "python:3.11-slim-bookworm" }
variable "TRAINING_LOCK" { default = "locks/training.txt" }

# to-megatron is not in the default group, because its extras need a base image with CUDA.
group "default" { targets = ["launcher", "curation", "training"] }

function "tags" {
  params = [name]
  result = [for tag in distinct([TAG, VERSION, "latest"]) : "${REGISTRY == "" ? "" : "${REGISTRY}/"}vasevqa/${name}:${tag}" if tag != "unknown"]
}

target "base" {
  dockerfile = "images/base/Dockerfile"
  target     = "base"
  args       = { BASE_IMAGE = BASE_IMAGE }
  output     = ["type=cacheonly"]
}

target "code" {
  inherits = ["base"]
  target   = "code"
}

target "torch" {
  dockerfile = "images/torch/Dockerfile"
  contexts   = { shared = "target:base" }
  args       = { SHARED = "shared" }
  output     = ["type=cacheonly"]
}

# Another training lock has its own torch, so the layer is then built directly on the base.
target "swift" {
  dockerfile = "images/swift/Dockerfile"
  contexts   = { shared = TRAINING_LOCK == "locks/training.txt" ? "target:torch" : "target:base" }
  args       = { SHARED = "shared", LOCK = TRAINING_LOCK }
  output     = ["type=cacheonly"]
}

target "image" {
  contexts = { code = "target:code" }
  args = {
    SHARED   = "shared"
    CODE     = "code"
    VERSION  = VERSION
    REVISION = REVISION
    SOURCE   = SOURCE
    TAG      = TAG
  }
}

target "launcher" {
  inherits   = ["image"]
  dockerfile = "images/launcher/Dockerfile"
  contexts   = { shared = "target:base" }
  tags       = tags("launcher")
}

target "curation" {
  inherits   = ["image"]
  name       = stage
  matrix     = { stage = ["train-classifier", "classify", "clip-filter", "select-views", "build-dataset"] }
  dockerfile = "images/${stage}/Dockerfile"
  contexts   = { shared = "target:torch" }
  tags       = tags(stage)
}

target "training" {
  inherits   = ["image"]
  name       = stage
  matrix     = { stage = ["sft", "merge", "grpo", "evaluate"] }
  dockerfile = "images/${stage}/Dockerfile"
  contexts   = { shared = "target:swift" }
  tags       = tags(stage)
}

target "to-megatron" {
  inherits   = ["image"]
  dockerfile = "images/to-megatron/Dockerfile"
  contexts   = { shared = "target:swift" }
  tags       = tags("to-megatron")
}
