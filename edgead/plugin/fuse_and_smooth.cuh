// The second launch: resize, fuse, smooth, maximum.
//
// A block makes kTile x kTile pixels of the map from the cosine maps, which the cache holds. What the Gaussian reaches
// beyond them it resizes again, which is cheaper than a third launch.

#pragma once

#include "arguments.cuh"

namespace edgead {

// The two inputs around an output of a bilinear resize, and how far it is towards the second.
struct Sample {
    int32_t low, high;
    float fraction;
};

// Coordinates are ratios of integers and are kept as such, so that the fraction is exact except its last rounding.
__device__ inline Sample sample(int32_t out, int32_t size_out, int32_t size_in, bool align_corners) {
    int32_t numerator, denominator;
    if (align_corners) {
        numerator = out * (size_in - 1);
        denominator = max(size_out - 1, 1);
    } else {
        numerator = max((2 * out + 1) * size_in - size_out, 0);
        denominator = 2 * size_out;
    }
    const int32_t low = min(numerator / denominator, size_in - 1);
    const float fraction = static_cast<float>(numerator - low * denominator) / static_cast<float>(denominator);
    return {low, min(low + 1, size_in - 1), fraction};
}

// Mirror about the pixel edge (d c b a | a b c d | d c b a), as often as needed.
__device__ inline int32_t mirror(int32_t position, int32_t size) {
    int32_t folded = position % (2 * size);
    if (folded < 0) {
        folded += 2 * size;
    }
    return folded < size ? folded : 2 * size - 1 - folded;
}

// Signed integers in the order of the floats; every NaN is above them all, so that a map with one has the score NaN.
__device__ inline int32_t key_from_float(float value) {
    const int32_t bits = __float_as_int(value);
    return value != value ? 0x7fffffff : bits < 0 ? bits ^ 0x7fffffff : bits;
}

__device__ inline void take_maximum(float* score, int32_t key) {
    // Of two negative floats the greater one has the smaller bits, and every positive one has smaller bits than those.
    if (key >= 0) {
        atomicMax(reinterpret_cast<int32_t*>(score), key);
    } else {
        atomicMin(reinterpret_cast<uint32_t*>(score), static_cast<uint32_t>(key ^ 0x7fffffff));
    }
}

// Shared memory of the second launch, in words. `taps` has the weights and three zeros; a row of `fused` holds kTile
// columns and a radius on each side. Odd strides, so that the four rows that a warp reads at once lie in other banks.
struct Layout {
    int32_t window, fused_stride, smooth_stride;
    int32_t fused, smooth, samples, keys, words;  // where each begins, and the end
};

__host__ __device__ constexpr Layout layout_for(int32_t radius) {
    Layout l{};
    l.window = kTile + 2 * radius;
    l.fused_stride = l.window + (l.window % 4 ? 3 : 1);
    l.smooth_stride = kTile + 1;
    l.fused = 2 * radius + 4;
    l.smooth = l.fused + kTile * l.fused_stride;
    l.samples = l.smooth + kTile * l.smooth_stride;
    l.keys = l.samples + kTile * kMaxScales * static_cast<int32_t>(sizeof(Sample) / sizeof(float));
    l.words = l.keys + kWarps;
    return l;
}

// What a block gets on every device without asking.
static_assert(layout_for(static_cast<int32_t>(4 * kMaxSigma)).words * sizeof(float) <= 48 * 1024,
              "kMaxSigma is too large");

// One step of a convolution that makes four neighbouring outputs: each value is read once, and the weights wander.
struct Convolution {
    float sum[4], weight[4];

    __device__ void step(float value, float next_weight) {
        weight[3] = weight[2];
        weight[2] = weight[1];
        weight[1] = weight[0];
        weight[0] = next_weight;
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
            sum[j] += weight[j] * value;
        }
    }
};

extern "C" __global__ void __launch_bounds__(kThreads, kResident)
    edgead_fuse_and_smooth(const __grid_constant__ Arguments a) {
    const Layout layout = layout_for(a.radius);
    float* const taps = shared_memory;
    float* const fused = shared_memory + layout.fused;
    float* const smooth = shared_memory + layout.smooth;
    Sample* const samples = reinterpret_cast<Sample*>(shared_memory + layout.samples);  // [kTile][kMaxScales]
    int32_t* const keys = reinterpret_cast<int32_t*>(shared_memory + layout.keys);

    const int32_t thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int32_t tiles_across = (a.width + kTile - 1) / kTile, tiles_down = (a.height + kTile - 1) / kTile;
    const int32_t tile = static_cast<int32_t>(blockIdx.x) % (tiles_across * tiles_down);
    const int32_t n = static_cast<int32_t>(blockIdx.x) / (tiles_across * tiles_down);
    const int32_t x0 = tile % tiles_across * kTile, y0 = tile / tiles_across * kTile;
    const int32_t reach = 2 * a.radius + 4;  // rows that four outputs below each other take in

    for (int32_t i = thread; i < reach; i += kThreads) {
        const float distance = static_cast<float>(i - a.radius);
        taps[i] = i <= 2 * a.radius ? a.normaliser * expf(a.exponent * distance * distance) : 0.0f;
    }

    // This thread's four pixels: column x0 + lane, rows first_row to first_row + 3.
    const int32_t first_row = y0 + 4 * warp;
    Convolution down = {};
    // Rows before 0 and after the last are mirrored ones, like the columns below.
    const int32_t end = min(y0 + kTile, a.height) + a.radius;
    for (int32_t chunk = y0 - a.radius; chunk < end; chunk += kTile) {
        if (thread < kTile * kMaxScales && thread % kMaxScales < a.scales) {
            const Scale& scale = a.scale[thread % kMaxScales];
            const int32_t row = mirror(chunk + thread / kMaxScales, a.height);
            samples[thread] = sample(row, a.height, scale.height, a.align_corners != 0);
        }
        __syncthreads();

        for (int32_t column = thread % 64; column < layout.window; column += 64) {
            constexpr int32_t kRows = kTile / (kThreads / 64);
            const int32_t x = mirror(x0 - a.radius + column, a.width);
            float value[kRows];
#pragma unroll
            for (int32_t i = 0; i < kRows; ++i) {
                value[i] = a.multiply ? 1.0f : 0.0f;
            }
            for (int32_t k = 0; k < a.scales; ++k) {
                const Scale& scale = a.scale[k];
                const Sample across = sample(x, a.width, scale.width, a.align_corners != 0);
                const float* map = a.maps + scale.map_offset + static_cast<int64_t>(n) * scale.height * scale.width;
#pragma unroll
                for (int32_t i = 0; i < kRows; ++i) {
                    const Sample along = samples[(thread / 64 * kRows + i) * kMaxScales + k];
                    const float* top = map + along.low * scale.width;
                    const float* bottom = map + along.high * scale.width;
                    const float left = top[across.low] * (1.0f - along.fraction) + bottom[across.low] * along.fraction;
                    const float right =
                        top[across.high] * (1.0f - along.fraction) + bottom[across.high] * along.fraction;
                    const float resized = left * (1.0f - across.fraction) + right * across.fraction;
                    value[i] = a.multiply ? value[i] * resized : value[i] + resized;
                }
            }
#pragma unroll
            for (int32_t i = 0; i < kRows; ++i) {
                fused[(thread / 64 * kRows + i) * layout.fused_stride + column] = value[i];
            }
        }
        __syncthreads();

        const float* source = fused + thread / 8 * layout.fused_stride + thread % 8 * 4;
        Convolution across = {};
        for (int32_t i = 0; i < reach; ++i) {
            across.step(source[i], taps[i]);
        }
        float* target = smooth + thread / 8 * layout.smooth_stride + thread % 8 * 4;
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
            target[j] = across.sum[j];
        }
        __syncthreads();

        // Rows of this chunk that this thread's outputs take in; the chunks follow each other without a gap.
        const int32_t start = first_row - a.radius - chunk;
        for (int32_t row = max(start, 0); row < min(start + reach, kTile); ++row) {
            down.step(smooth[row * layout.smooth_stride + lane], taps[row - start]);
        }
    }

    int32_t key = -0x7fffffff - 1;
#pragma unroll
    for (int32_t j = 0; j < 4; ++j) {
        if (x0 + lane < a.width && first_row + j < a.height) {
            const int64_t row = static_cast<int64_t>(n) * a.height + first_row + j;
            a.anomaly_map[row * a.width + x0 + lane] = down.sum[j];
            key = max(key, key_from_float(down.sum[j]));
        }
    }
    for (int32_t offset = 16; offset > 0; offset /= 2) {
        key = max(key, __shfl_xor_sync(0xffffffffu, key, offset));
    }
    if (lane == 0) {
        keys[warp] = key;
    }
    __syncthreads();
    if (thread == 0) {
        for (int32_t other = 1; other < kWarps; ++other) {
            key = max(key, keys[other]);
        }
        take_maximum(a.anomaly_score + n, key);
    }
}

}  // namespace edgead
