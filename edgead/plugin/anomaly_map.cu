// The launcher of edgead::AnomalyMap: checks what it is given, cuts the work into blocks, and launches twice.

#include "anomaly_map.cuh"

#include <algorithm>
#include <cmath>
#include <limits>

namespace edgead {
namespace {

int64_t positions(const Shape& shape, int32_t k) {
    return static_cast<int64_t>(shape.feature_height[k]) * shape.feature_width[k];
}

int64_t bytes_of(Format format, const Shape& shape, int32_t k) {
    const int64_t channels = format == Format::kHalf8 ? (shape.channels[k] + 7) / 8 * 8 : shape.channels[k];
    return (format == Format::kFloat ? 4 : 2) * shape.batch * channels * positions(shape, k);
}

bool is_valid(Format format, const Shape& shape, const Spec& spec) {
    const auto size = [](int32_t value) { return value >= 1 && value <= kMaxSize; };
    const auto flag = [](int32_t value) { return value == 0 || value == 1; };
    bool valid = format == Format::kFloat || format == Format::kHalf || format == Format::kHalf8;
    valid = valid && shape.batch >= 1 && size(shape.height) && size(shape.width);
    valid = valid && shape.scales >= 1 && shape.scales <= kMaxScales;
    valid = valid && flag(spec.fusion) && flag(spec.align_corners) && spec.sigma >= 0.0f && spec.sigma <= kMaxSigma;
    for (int32_t k = 0; valid && k < shape.scales; ++k) {
        valid = shape.channels[k] >= 1 && spec.weights[k] > 0.0f && std::isfinite(spec.weights[k]) && size(shape.feature_height[k]) && size(shape.feature_width[k]) &&
                shape.batch * positions(shape, k) <= std::numeric_limits<int32_t>::max();
    }
    return valid;
}

bool is_aligned(const void* teacher, const void* student) {
    return (reinterpret_cast<uintptr_t>(teacher) | reinterpret_cast<uintptr_t>(student)) % 16 == 0;
}

// Set how the scale is cut, and give the number of its blocks.
//
// wanted: bytes that a block should read. Wide enough to read whole lines of the cache where there is much to read, and
// narrow enough to give every multiprocessor a block where there is little; below 32 bytes side by side, what is read
// is not all used, and with more groups of threads than channels some have nothing to do.
int64_t cut(Format format, int32_t batch, int64_t wanted, Scale& scale) {
    const int64_t count = static_cast<int64_t>(scale.height) * scale.width;
    scale.lanes = 32;
    if (format == Format::kHalf8) {
        // Four groups of 8 channels for each thread of a position, but whole lines of the cache where there are any.
        scale.pixels = 1;
        const int32_t groups = (scale.channels + 7) / 8;
        while (scale.lanes > 1 && scale.lanes / 2 >= std::min(groups, std::max(groups / kUnroll, 8))) {
            scale.lanes /= 2;
        }
        return (batch * count * scale.lanes + kThreads - 1) / kThreads;
    }
    const int32_t element = format == Format::kFloat ? 4 : 2;
    scale.pixels = is_aligned(scale.teacher, scale.student) && count % (16 / element) == 0 ? 16 / element : 1;
    const int32_t bytes = scale.pixels * element;
    while (scale.lanes * bytes > 32 && 2LL * scale.lanes * bytes * scale.channels > wanted &&
           kThreads / scale.lanes < scale.channels) {
        scale.lanes /= 2;
    }
    const int64_t width = static_cast<int64_t>(scale.lanes) * scale.pixels;
    return batch * ((count + width - 1) / width);
}

// All kernels take `Arguments` alone.
cudaError_t launch(void (*kernel)(Arguments), int64_t blocks, int64_t shared_bytes, Arguments& arguments,
                   cudaStream_t stream) {
    if (blocks > std::numeric_limits<int32_t>::max()) {
        return cudaErrorInvalidValue;
    }
    void* parameters[] = {&arguments};
    const cudaError_t launched =
        cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(static_cast<uint32_t>(blocks)), dim3(kThreads),
                         parameters, static_cast<size_t>(shared_bytes), stream);
    // An error that is given back is taken off the thread's record too: the caller's next check is of its own calls.
    const cudaError_t recorded = cudaGetLastError();
    return launched != cudaSuccess ? launched : recorded;
}

}  // namespace

size_t workspace_bytes(const Shape& shape, const Spec&) {
    int64_t floats = 0;
    for (int32_t k = 0; k < shape.scales; ++k) {
        floats += shape.batch * positions(shape, k);
    }
    return static_cast<size_t>(floats) * sizeof(float);
}

cudaError_t launch_anomaly_map(Format format, const Shape& shape, const Spec& spec, const void* const teacher[],
                               const void* const student[], void* workspace, float* anomaly_map, float* anomaly_score,
                               cudaStream_t stream) {
    if (!is_valid(format, shape, spec) || !teacher || !student || !workspace || !anomaly_map || !anomaly_score) {
        return cudaErrorInvalidValue;
    }
    int device = 0, multiprocessors = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess) {
        status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    }
    if (status != cudaSuccess) {
        return status;
    }

    Arguments a{};
    a.maps = static_cast<float*>(workspace);
    a.anomaly_map = anomaly_map;
    a.anomaly_score = anomaly_score;
    a.batch = shape.batch;
    a.height = shape.height;
    a.width = shape.width;
    a.scales = shape.scales;
    a.multiply = spec.fusion;
    a.align_corners = spec.align_corners;
    a.radius = static_cast<int32_t>(4.0 * spec.sigma + 0.5);
    a.exponent = a.radius ? static_cast<float>(-0.5 / (static_cast<double>(spec.sigma) * spec.sigma)) : 0.0f;
    double sum = 1.0;
    for (int32_t distance = 1; distance <= a.radius; ++distance) {
        sum += 2.0 * std::exp(-0.5 * distance * distance / (static_cast<double>(spec.sigma) * spec.sigma));
    }
    a.normaliser = static_cast<float>(1.0 / sum);

    int64_t total_bytes = 0;
    for (int32_t k = 0; k < a.scales; ++k) {
        total_bytes += 2 * bytes_of(format, shape, k);
    }
    int64_t blocks = 0, floats = 0;
    int32_t widest = 0;
    for (int32_t k = 0; k < a.scales; ++k) {
        Scale& scale = a.scale[k];
        scale.teacher = teacher[k];
        scale.student = student[k];
        scale.weight = spec.weights[k];
        if (!teacher[k] || !student[k]) {
            return cudaErrorInvalidValue;
        }
        if (format == Format::kHalf8 && !is_aligned(teacher[k], student[k])) {
            return cudaErrorMisalignedAddress;
        }
        scale.channels = shape.channels[k];
        scale.height = shape.feature_height[k];
        scale.width = shape.feature_width[k];
        scale.map_offset = floats;
        floats += shape.batch * positions(shape, k);
        scale.first_block = static_cast<int32_t>(std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max()));
        // Two blocks for each multiprocessor, so that they end together.
        blocks += cut(format, shape.batch, total_bytes / (2 * std::max(multiprocessors, 1)), scale);
        widest = std::max(widest, scale.lanes * scale.pixels);
    }
    const int64_t partial_sums = format == Format::kHalf8 ? 0 : 3LL * kWarps * widest;
    status = launch(format == Format::kFloat  ? edgead_cosine_float
                    : format == Format::kHalf ? edgead_cosine_half
                                              : edgead_cosine_half8,
                    blocks, partial_sums * sizeof(float), a, stream);
    if (status != cudaSuccess) {
        return status;
    }
    const int64_t tiles = static_cast<int64_t>((a.width + kTile - 1) / kTile) * ((a.height + kTile - 1) / kTile);
    return launch(edgead_fuse_and_smooth, a.batch * tiles, layout_for(a.radius).words * sizeof(float), a, stream);
}

}  // namespace edgead
