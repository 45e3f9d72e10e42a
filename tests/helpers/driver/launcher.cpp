// Stands in for the kernels: prints what the launcher was asked, and answers as the environment variable LAUNCHER says.

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "anomaly_map.h"

namespace {

bool asked_to(const char* what) {
    const char* answer = std::getenv("LAUNCHER");
    return answer != nullptr && std::string(answer) == what;
}

void print(const char* what, const edgead::Shape& s, const edgead::Spec& p) {
    std::printf("%s batch=%d height=%d width=%d scales=%d fusion=%d sigma=%g align_corners=%d", what, s.batch, s.height,
                s.width, s.scales, p.fusion, p.sigma, p.align_corners);
    for (int k = 0; k < s.scales; ++k) std::printf("%s%g", k == 0 ? " weights=" : ",", p.weights[k]);
    for (int k = 0; k < s.scales; ++k) {
        std::printf(" %dx%dx%d", s.channels[k], s.feature_height[k], s.feature_width[k]);
    }
}

void print(const char* what, const void* pointer) { std::printf(" %s=%zx", what, reinterpret_cast<size_t>(pointer)); }

}  // namespace

namespace edgead {

size_t workspace_bytes(const Shape& shape, const Spec& spec) {
    print("workspace_bytes", shape, spec);
    std::printf("\n");
    if (asked_to("throw")) throw std::runtime_error("thrown by the launcher");
    return static_cast<size_t>(shape.batch) * 1000 + static_cast<size_t>(shape.scales);
}

cudaError_t launch_anomaly_map(Format format, const Shape& shape, const Spec& spec, const void* const teacher[],
                               const void* const student[], void* workspace, float* anomaly_map, float* anomaly_score,
                               cudaStream_t stream) {
    print("launch", shape, spec);
    std::printf(" format=%d", static_cast<int>(format));
    for (int k = 0; k < shape.scales; ++k) print("teacher", teacher[k]);
    for (int k = 0; k < shape.scales; ++k) print("student", student[k]);
    print("workspace", workspace);
    print("map", anomaly_map);
    print("score", anomaly_score);
    print("stream", stream);
    std::printf("\n");
    if (asked_to("throw")) throw std::runtime_error("thrown by the launcher");
    return asked_to("error") ? cudaErrorInvalidValue : cudaSuccess;
}

}  // namespace edgead

extern "C" const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorInvalidValue ? "invalid argument" : "unexpected";
}
