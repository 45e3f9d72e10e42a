// A CUDA device made of one thread of the host, as far as edgead/plugin needs one: stands in for CUDA's own header.
//
// A block's threads are fibers. Each runs alone until it meets a barrier or a shuffle, so what it left for others and
// what others had still to read is plain: with a barrier missing, the thread that runs first reads poison, or the one
// that runs last reads what was overwritten. Blocks and threads run forwards, backwards or shuffled, as told.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __host__
#define __device__
#define __shared__
#define __grid_constant__
#define __launch_bounds__(...)

using std::max;
using std::min;

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMisalignedAddress = 716,
    cudaErrorLaunchFailure = 719
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
using cudaStream_t = void*;

struct dim3 {
    uint32_t x, y, z;
    explicit dim3(uint32_t x) : x(x), y(1), z(1) {}
};
struct uint4 {
    uint32_t x, y, z, w;
};

namespace device {
struct Index {
    uint32_t x;
};
[[noreturn]] void fail(const char* what);  // of the kernel that runs; its launch gives cudaErrorLaunchFailure
bool is_feature(const void* address, size_t bytes);
void barrier();
uint32_t exchange(uint32_t mask, uint32_t value, int lane_xor);
}  // namespace device

extern device::Index threadIdx, blockIdx;

inline void __syncthreads() { device::barrier(); }

template <typename T>
T __ldg(const T* address) {
    if (reinterpret_cast<uintptr_t>(address) % sizeof(T)) {
        device::fail("a load off its alignment");
    }
    if (!device::is_feature(address, sizeof(T))) {
        device::fail("a load beyond the features");
    }
    return *address;
}

template <typename To, typename From>
To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(uint32_t bits) { return same_bits<float>(bits); }
inline int32_t __float_as_int(float value) { return same_bits<int32_t>(value); }

template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_xor) {
    return same_bits<T>(device::exchange(mask, same_bits<uint32_t>(value), lane_xor));
}

inline void atomicMax(int32_t* address, int32_t value) { *address = max(*address, value); }
inline void atomicMin(uint32_t* address, uint32_t value) { *address = min(*address, value); }

// IEEE 754 binary16, written from its definition.
inline float float_from_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float magnitude = 0.0f;
    if (exponent == 31) {
        magnitude = mantissa ? NAN : INFINITY;
    } else if (exponent == 0) {
        magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    } else {
        magnitude = std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    }
    return bits >> 15 ? -magnitude : magnitude;
}

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetLastError();
cudaError_t cudaLaunchKernel(const void* kernel, dim3 blocks, dim3 threads, void** arguments, size_t shared_bytes,
                             cudaStream_t stream);
