// The first launch: 1 - <t, s> / (|t| |s|) over channels, for all scales at once.
//
// This is where the bytes are. Every feature is read once, 16 bytes a load, and the loads of a step are written to be
// under way together.

#pragma once

#include "arguments.cuh"

namespace edgead {

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
    const int32_t blocks = (positions + width - 1) / width;  // of one image
    const int32_t block = static_cast<int32_t>(blockIdx.x) - scale.first_block;
    const int32_t n = block / blocks, first = block % blocks * width;
    const int32_t thread = threadIdx.x, lane = thread % lanes, group = thread / lanes;
    const int32_t position = first + lane * kPixels;

    Sums sums[kPixels] = {};
    if (position < positions) {
        const int64_t base = static_cast<int64_t>(n) * scale.channels * positions + position;
        for (int32_t channel = group; channel < scale.channels; channel += kUnroll * groups) {
            Load t[kUnroll], s[kUnroll];
#pragma unroll
            for (int32_t u = 0; u < kUnroll; ++u) {
                if (channel + u * groups < scale.channels) {
                    const int64_t index = base + static_cast<int64_t>(channel + u * groups) * positions;
                    t[u].load(scale.teacher, index);
                    s[u].load(scale.student, index);
                }
            }
#pragma unroll
            for (int32_t u = 0; u < kUnroll; ++u) {
#pragma unroll
                for (int32_t p = 0; p < kPixels; ++p) {
                    sums[p].add(t[u].value(p), s[u].value(p));
                }
            }
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
            a.maps[scale.map_offset + static_cast<int64_t>(n) * positions + out] = scale.weight * total.distance();
        }
    }
}

// N H W C in groups of 8 channels. `lanes` threads share a position, each takes every lanes-th group of it.
__device__ inline void cosine_of_pixels(const Arguments& a, const Scale& scale) {
    const int32_t thread = threadIdx.x, lanes = scale.lanes, lane = thread % lanes;
    const int32_t block = static_cast<int32_t>(blockIdx.x) - scale.first_block;
    const int32_t position = block * (kThreads / lanes) + thread / lanes;  // over all images
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
        a.maps[scale.map_offset + position] = scale.weight * sums.distance();
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

}  // namespace edgead
