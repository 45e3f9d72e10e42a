// Device code of the operator edgead::AnomalyMap: two launches, and what they are told.
//
// 1. edgead_cosine_*: the cosine maps of all scales, 1 - <t, s> / (|t| |s|) over channels. This is where the bytes are:
//    every feature is read once, 16 bytes a load. The maps, a few KiB a picture, go to the workspace.
// 2. edgead_fuse_and_smooth: resize, fuse, smooth, maximum. A block makes 32 x 32 pixels of the map; what the Gaussian
//    reaches beyond them it resizes again, which is cheaper than a third launch.
//
// No operation depends on the order in which blocks or threads run: sums have a fixed order, and the one atomic takes
// the maximum of integers that are ordered as the floats are, which is the same in any order. So equal inputs give
// equal bits. Kept free of CUDA's headers, so that NVRTC compiles it where no toolkit is installed.

#pragma once

#include "anomaly_map.h"

namespace edgead {

constexpr int32_t kThreads = 256;
constexpr int32_t kWarps = kThreads / 32;
constexpr int32_t kTile = 32;       // a block makes kTile x kTile pixels of the map
constexpr int32_t kUnroll = 4;      // 16-byte loads of each side that a thread has in flight
constexpr int32_t kResident = 3;    // blocks that a multiprocessor holds at least: up to 80 registers a thread, without
                                    // which the compiler issues half of those loads late, and spills on sm_100
constexpr float kEpsilon = 1e-8f;   // EPSILON of edgead/anomaly_map.py

// One scale: its features, and how their positions are cut into blocks.
struct Scale {
    const void* teacher;
    const void* student;
    int64_t map_offset;   // of its cosine maps (N, H_k, W_k) in the workspace, in floats
    int32_t channels, height, width;
    int32_t pixels;       // positions that a thread loads at once: 16 bytes, or 1 position where alignment forbids it
    int32_t lanes;        // neighbouring threads: along positions (N C H W) or along channels (N H W C); a power of two
    int32_t first_block;  // of this scale in the launch
};

// What both kernels are told.
struct Arguments {
    Scale scale[kMaxScales];
    float* maps;
    float* anomaly_map;
    float* anomaly_score;
    int32_t batch, height, width, scales;
    int32_t multiply, align_corners;
    int32_t radius;    // of the Gaussian; its weights are normaliser * exp(exponent * distance^2)
    float exponent, normaliser;
};

extern __shared__ float shared_memory[];

// --- The cosine maps ------------------------------------------------------------------------------------------------

#ifdef __CUDACC__
__device__ inline float float_from_half(uint16_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
#endif

// <t, s>, <t, t> and <s, s> of one position, in FP32: the square of the largest half is beyond half.
struct Sums {
    float ts, tt, ss;

    __device__ void add(float t, float s) {
        ts += t * s;
        tt += t * t;
        ss += s * s;
    }

    // Dividing twice keeps the product of two large norms from overflowing.
    __device__ float distance() const {
        return 1.0f - ts / fmaxf(sqrtf(tt), kEpsilon) / fmaxf(sqrtf(ss), kEpsilon);
    }
};

// What a thread loads at once: values[] of kPixels positions, zero when default-made.
struct Float4 {
    static constexpr int32_t kPixels = 4;
    uint4 words{};
    __device__ void load(const void* base, int64_t index) {
        words = __ldg(reinterpret_cast<const uint4*>(static_cast<const float*>(base) + index));
    }
    __device__ float value(int32_t pixel) const {
        return __uint_as_float(pixel == 0 ? words.x : pixel == 1 ? words.y : pixel == 2 ? words.z : words.w);
    }
};

struct Float1 {
    static constexpr int32_t kPixels = 1;
    float word{};
    __device__ void load(const void* base, int64_t index) { word = __ldg(static_cast<const float*>(base) + index); }
    __device__ float value(int32_t) const { return word; }
};

struct Half8 {
    static constexpr int32_t kPixels = 8;
    uint4 words{};
    __device__ void load(const void* base, int64_t index) {
        words = __ldg(reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(base) + index));
    }
    __device__ float value(int32_t pixel) const {
        const uint32_t word = pixel < 2 ? words.x : pixel < 4 ? words.y : pixel < 6 ? words.z : words.w;
        return float_from_half(static_cast<uint16_t>(pixel % 2 ? word >> 16 : word));
    }
    // Zero all but the first `count` values, whatever bits they have.
    __device__ void keep(int32_t count) {
        words.x = kept(words.x, count);
        words.y = kept(words.y, count - 2);
        words.z = kept(words.z, count - 4);
        words.w = kept(words.w, count - 6);
    }

   private:
    __device__ static uint32_t kept(uint32_t word, int32_t count) {
        return count >= 2 ? word : count == 1 ? word & 0xffffu : 0u;
    }
};

struct Half1 {
    static constexpr int32_t kPixels = 1;
    uint16_t word{};
    __device__ void load(const void* base, int64_t index) { word = __ldg(static_cast<const uint16_t*>(base) + index); }
    __device__ float value(int32_t) const { return float_from_half(word); }
};

template <typename Load>
__device__ void add_all(Sums (&sums)[Load::kPixels], const Load& t, const Load& s) {
#pragma unroll
    for (int32_t p = 0; p < Load::kPixels; ++p) {
        sums[p].add(t.value(p), s.value(p));
    }
}

__device__ inline const Scale& scale_of_block(const Arguments& a) {
    int32_t k = 0;
    while (k + 1 < a.scales && static_cast<int32_t>(blockIdx.x) >= a.scale[k + 1].first_block) {
        ++k;
    }
    return a.scale[k];
}

// The second launch takes maxima into the scores, so the first one sets them to the smallest float.
__device__ inline void clear_scores(const Arguments& a) {
    if (blockIdx.x == 0) {
        for (int32_t n = threadIdx.x; n < a.batch; n += kThreads) {
            a.anomaly_score[n] = __uint_as_float(0xff800000u);
        }
    }
}

// N C H W. `lanes` threads stand side by side along the positions, the others of the block take other channels of the
// same positions, so that small and deep feature maps fill the device too. Their sums meet by shuffles within a warp,
// then in shared memory: [3][kWarps][lanes * kPixels].
template <typename Load>
__device__ void cosine_of_planes(const Arguments& a, const Scale& scale) {
    constexpr int32_t kPixels = Load::kPixels;
    const int32_t positions = scale.height * scale.width;
    const int32_t lanes = scale.lanes, groups = kThreads / lanes, width = lanes * kPixels;
    const int32_t blocks = (positions + width - 1) / width;  // of one picture
    const int32_t block = static_cast<int32_t>(blockIdx.x) - scale.first_block;
    const int32_t n = block / blocks, first = block % blocks * width;
    const int32_t thread = threadIdx.x, lane = thread % lanes, group = thread / lanes;
    const int32_t position = first + lane * kPixels;

    Sums sums[kPixels] = {};
    if (position < positions) {
        const int64_t base = static_cast<int64_t>(n) * scale.channels * positions + position;
        const int64_t step = static_cast<int64_t>(groups) * positions;
        int64_t index = base + static_cast<int64_t>(group) * positions;
        int32_t channel = group;
        for (; channel + (kUnroll - 1) * groups < scale.channels; channel += kUnroll * groups) {
            Load t[kUnroll], s[kUnroll];
#pragma unroll
            for (int32_t u = 0; u < kUnroll; ++u, index += step) {
                t[u].load(scale.teacher, index);
                s[u].load(scale.student, index);
            }
#pragma unroll
            for (int32_t u = 0; u < kUnroll; ++u) {
                add_all(sums, t[u], s[u]);
            }
        }
        for (; channel < scale.channels; channel += groups, index += step) {
            Load t, s;
            t.load(scale.teacher, index);
            s.load(scale.student, index);
            add_all(sums, t, s);
        }
    }

    for (int32_t offset = 16; offset >= lanes; offset /= 2) {
#pragma unroll
        for (int32_t p = 0; p < kPixels; ++p) {
            sums[p].ts += __shfl_xor_sync(0xffffffffu, sums[p].ts, offset);
            sums[p].tt += __shfl_xor_sync(0xffffffffu, sums[p].tt, offset);
            sums[p].ss += __shfl_xor_sync(0xffffffffu, sums[p].ss, offset);
        }
    }
    const int32_t plane = kWarps * width;
    if (thread % 32 < lanes) {
        // Neighbouring threads write neighbouring words, so a thread's positions lie `lanes` apart.
        float* partial = shared_memory + thread / 32 * width + lane;
#pragma unroll
        for (int32_t p = 0; p < kPixels; ++p) {
            partial[p * lanes] = sums[p].ts;
            partial[p * lanes + plane] = sums[p].tt;
            partial[p * lanes + 2 * plane] = sums[p].ss;
        }
    }
    __syncthreads();

    if (thread < width) {
        const int32_t out = first + lane * kPixels + group;
        if (out < positions) {
            Sums total = {};
            for (int32_t warp = 0; warp < kWarps; ++warp) {
                const float* partial = shared_memory + warp * width + thread;
                total.ts += partial[0];
                total.tt += partial[plane];
                total.ss += partial[2 * plane];
            }
            a.maps[scale.map_offset + static_cast<int64_t>(n) * positions + out] = total.distance();
        }
    }
}

// N H W C in groups of 8 channels. `lanes` threads share a position, each takes every lanes-th group of it.
__device__ inline void cosine_of_pixels(const Arguments& a, const Scale& scale) {
    const int32_t thread = threadIdx.x, lanes = scale.lanes, lane = thread % lanes;
    const int32_t block = static_cast<int32_t>(blockIdx.x) - scale.first_block;
    const int32_t position = block * (kThreads / lanes) + thread / lanes;  // over all pictures
    const bool inside = position < a.batch * scale.height * scale.width;
    const int32_t groups = (scale.channels + 7) / 8;

    Sums sums = {};
    for (int32_t group = inside ? lane : groups; group < groups; group += kUnroll * lanes) {
        Half8 t[kUnroll], s[kUnroll];
#pragma unroll
        for (int32_t u = 0; u < kUnroll; ++u) {
            if (group + u * lanes < groups) {
                const int64_t index = (static_cast<int64_t>(position) * groups + group + u * lanes) * 8;
                t[u].load(scale.teacher, index);
                s[u].load(scale.student, index);
            }
        }
#pragma unroll
        for (int32_t u = 0; u < kUnroll; ++u) {
            const int32_t count = scale.channels - (group + u * lanes) * 8;
            if (count < 8) {
                t[u].keep(count);
                s[u].keep(count);
            }
#pragma unroll
            for (int32_t c = 0; c < 8; ++c) {
                sums.add(t[u].value(c), s[u].value(c));
            }
        }
    }
    for (int32_t offset = lanes / 2; offset > 0; offset /= 2) {
        sums.ts += __shfl_xor_sync(0xffffffffu, sums.ts, offset);
        sums.tt += __shfl_xor_sync(0xffffffffu, sums.tt, offset);
        sums.ss += __shfl_xor_sync(0xffffffffu, sums.ss, offset);
    }
    if (inside && lane == 0) {
        a.maps[scale.map_offset + position] = sums.distance();
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, kResident)
    edgead_cosine_float(const __grid_constant__ Arguments a) {
    clear_scores(a);
    const Scale& scale = scale_of_block(a);
    if (scale.pixels == Float4::kPixels) {
        cosine_of_planes<Float4>(a, scale);
    } else {
        cosine_of_planes<Float1>(a, scale);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, kResident)
    edgead_cosine_half(const __grid_constant__ Arguments a) {
    clear_scores(a);
    const Scale& scale = scale_of_block(a);
    if (scale.pixels == Half8::kPixels) {
        cosine_of_planes<Half8>(a, scale);
    } else {
        cosine_of_planes<Half1>(a, scale);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, kResident)
    edgead_cosine_half8(const __grid_constant__ Arguments a) {
    clear_scores(a);
    cosine_of_pixels(a, scale_of_block(a));
}

// --- Resize, fuse, smooth, maximum ----------------------------------------------------------------------------------

// The two inputs around an output of a bilinear resize, and how far it is towards the second.
struct Sample {
    int32_t low, high;
    float fraction;
};

// Coordinates are ratios of integers and are kept as such, so that the fraction is exact but for its last rounding.
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
