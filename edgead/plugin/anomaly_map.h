// The operator edgead::AnomalyMap on a CUDA device: features of teacher and student to one map and one score an image.
//
// This header is all that a caller sees, be it a TensorRT plugin or a test: raw device pointers, a stream and the error
// of CUDA. It is the launcher's side of edgead/imaging/anomaly_map.py, which defines the operator.

#pragma once

#ifndef __CUDACC_RTC__
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#endif

namespace edgead {

#ifdef __CUDACC_RTC__
using int32_t = int;
using int64_t = long long;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
#endif

// How a feature tensor (N, C, H, W) lies in memory.
enum class Format : int32_t {
    kFloat = 0,  // FP32, N C H W
    kHalf = 1,   // FP16, N C H W
    kHalf8 = 2,  // FP16, N H W C with C padded to a multiple of 8 (TensorRT's kHWC8); the padding may hold anything
};

constexpr int32_t kMaxScales = 4;
constexpr int32_t kMaxSize = 16384;   // largest height and width, of maps and features
constexpr float kMaxSigma = 32.0f;    // largest sigma: the radius, 128 then, has to fit a block's shared memory

struct Shape {
    int32_t batch, height, width;  // of the map, in pixels
    int32_t scales;                // K, 1 to kMaxScales
    int32_t channels[kMaxScales], feature_height[kMaxScales], feature_width[kMaxScales];
};

struct Spec {
    int32_t fusion;         // 0 adds the scales, 1 multiplies them
    float sigma;            // of the Gaussian, in pixels of the map; 0 means no smoothing
    int32_t align_corners;  // of the bilinear resize, 0 or 1
    float weights[kMaxScales];  // factors of the cosine maps of the scales, finite and above 0
};

#ifndef __CUDACC_RTC__

// Bytes of device memory that launch_anomaly_map works in; their contents before and after mean nothing.
size_t workspace_bytes(const Shape& shape, const Spec& spec);

// Enqueue the operator on `stream`.
//
// teacher, student: `shape.scales` device pointers each (the arrays themselves lie on the host), all of one format;
// kHalf8 wants them aligned to 16 bytes, the others run faster so. workspace: workspace_bytes(), aligned to 16.
// anomaly_map: batch * height * width floats. anomaly_score: batch floats, the maximum of each map; NaN when its map
// holds a NaN.
//
// Allocates nothing, waits for nothing and keeps no state, so it may be captured into a CUDA graph. Equal inputs give
// equal bits on equal devices. Returns cudaErrorInvalidValue for a shape, spec or pointer that the above rules out,
// cudaErrorMisalignedAddress for kHalf8 features off alignment, or what a launch returned.
cudaError_t launch_anomaly_map(Format format, const Shape& shape, const Spec& spec, const void* const teacher[],
                               const void* const student[], void* workspace, float* anomaly_map, float* anomaly_score,
                               cudaStream_t stream);

#endif

}  // namespace edgead
