// The device of cuda_runtime_api.h, the launcher and the kernels in one library for ctypes.

#include "anomaly_map.cu"

#include <csetjmp>
#include <cstdio>
#include <memory>
#include <ucontext.h>
#include <vector>

device::Index threadIdx, blockIdx;
namespace edgead {
constexpr size_t kSharedBytes = 48 * 1024;  // what a block gets on every device without asking
alignas(16) float shared_memory[kSharedBytes / sizeof(float) + 1024];
}  // namespace edgead

namespace {

using Kernel = void (*)(edgead::Arguments);
constexpr size_t kStackBytes = 64 * 1024;
constexpr int kMaxThreads = 1024;
constexpr uint32_t kPoison = 0xffc0dead;  // as a float a NaN, as an integer an index far out of range
enum class State { kReady, kAtBarrier, kAtShuffle, kFinished };

struct Fiber {
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    ucontext_t context;
    bool started = false;
    jmp_buf resume;
    State state = State::kFinished;
    uint32_t exchanged[2] = {};  // in turn, so that a fast lane does not overwrite what a slow one has still to read
    uint32_t shuffles = 0;
};

std::vector<Fiber> fibers(kMaxThreads);
ucontext_t scheduler_context;
jmp_buf scheduler;
int current = 0;
Kernel kernel = nullptr;
const edgead::Arguments* kernel_arguments = nullptr;

struct Launch {
    uint32_t blocks;
    size_t shared_bytes;
    edgead::Arguments arguments;
};
std::vector<Launch> launches;  // of the last run

struct Range {
    const char *begin, *end;
};
std::vector<Range> features;  // what the kernels may load; anything where there is none

int multiprocessors = 1, order = 0, failing_launch = -1;
cudaError_t last_error = cudaSuccess;
char failure[256] = "";

void wait(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    if (!_setjmp(fiber.resume)) {
        _longjmp(scheduler, 1);
    }
}

// A fiber lives for the whole process and runs one thread after another.
void run_threads() {
    for (;;) {
        kernel(*kernel_arguments);
        wait(State::kFinished);
    }
}

void resume(int thread) {
    Fiber& fiber = fibers[thread];
    current = thread;
    threadIdx.x = static_cast<uint32_t>(thread);
    if (_setjmp(scheduler)) {
        return;
    }
    if (fiber.started) {
        _longjmp(fiber.resume, 1);
    }
    fiber.started = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    makecontext(&fiber.context, run_threads, 0);
    swapcontext(&scheduler_context, &fiber.context);
}

// The i-th of n to run, by `order`: 0 forwards, 1 backwards, others shuffled.
int in_turn(int i, int n) {
    if (order == 0) {
        return i;
    }
    if (order == 1) {
        return n - 1 - i;
    }
    // 7919 is a prime larger than any block, so every thread has one turn.
    return static_cast<int>((static_cast<int64_t>(i) * 7919 + order) % n);
}

void all_become_ready(int first, int count) {
    for (int t = first; t < first + count; ++t) {
        fibers[t].state = State::kReady;
    }
}

bool all_are(State state, int first, int count) {
    for (int t = first; t < first + count; ++t) {
        if (fibers[t].state != state) {
            return false;
        }
    }
    return true;
}

void run_block(int threads, size_t shared_bytes) {
    uint32_t* shared = reinterpret_cast<uint32_t*>(edgead::shared_memory);
    const size_t words = sizeof(edgead::shared_memory) / sizeof(uint32_t);
    std::fill(shared, shared + words, kPoison);
    all_become_ready(0, threads);
    while (!all_are(State::kFinished, 0, threads)) {
        bool moved = false;
        for (int i = 0; i < threads; ++i) {
            const int thread = in_turn(i, threads);
            if (fibers[thread].state == State::kReady) {
                resume(thread);
                moved = true;
                if (failure[0]) {
                    return;
                }
            }
        }
        for (int warp = 0; warp < threads; warp += 32) {
            if (all_are(State::kAtShuffle, warp, 32)) {
                all_become_ready(warp, 32);
                moved = true;
            }
        }
        if (all_are(State::kAtBarrier, 0, threads)) {
            all_become_ready(0, threads);
            moved = true;
        }
        if (!moved) {
            std::snprintf(failure, sizeof failure, "threads wait for others that never come");
            return;
        }
    }
    for (size_t word = (shared_bytes + 3) / 4; word < words; ++word) {
        if (shared[word] != kPoison) {
            std::snprintf(failure, sizeof failure, "shared memory is written beyond its %zu bytes", shared_bytes);
            return;
        }
    }
}

}  // namespace

namespace device {

void fail(const char* what) {
    std::snprintf(failure, sizeof failure, "%s", what);
    // The fiber is given up where it stands; the next launch starts a new one on its stack.
    fibers[current].started = false;
    _longjmp(scheduler, 1);
}

bool is_feature(const void* address, size_t bytes) {
    const char* begin = static_cast<const char*>(address);
    const auto holds = [=](const Range& range) { return range.begin <= begin && begin + bytes <= range.end; };
    return features.empty() || std::any_of(features.begin(), features.end(), holds);
}

void barrier() { wait(State::kAtBarrier); }

uint32_t exchange(uint32_t mask, uint32_t value, int lane_xor) {
    if (mask != 0xffffffffu) {
        fail("a shuffle of part of a warp");
    }
    Fiber& fiber = fibers[current];
    const uint32_t turn = fiber.shuffles++ % 2;
    fiber.exchanged[turn] = value;
    const int other = current ^ lane_xor;
    wait(State::kAtShuffle);
    return fibers[other].exchanged[turn];
}

}  // namespace device

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = multiprocessors;
    return cudaSuccess;
}

cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaLaunchKernel(const void* function, dim3 blocks, dim3 threads, void** arguments, size_t shared_bytes,
                             cudaStream_t) {
    kernel = reinterpret_cast<Kernel>(const_cast<void*>(function));
    kernel_arguments = static_cast<const edgead::Arguments*>(arguments[0]);
    launches.push_back({blocks.x, shared_bytes, *kernel_arguments});
    if (static_cast<int>(launches.size()) == failing_launch + 1 || shared_bytes > edgead::kSharedBytes) {
        return last_error = cudaErrorLaunchFailure;
    }
    for (auto& fiber : fibers) {
        fiber.shuffles = 0;
    }
    for (uint32_t i = 0; i < blocks.x; ++i) {
        blockIdx.x = order == 1 ? blocks.x - 1 - i : i;
        run_block(static_cast<int>(threads.x), shared_bytes);
        if (failure[0]) {
            // Threads that stand in the middle of the kernel are given up.
            for (auto& fiber : fibers) {
                fiber.started = fiber.started && fiber.state == State::kFinished;
            }
            return last_error = cudaErrorLaunchFailure;
        }
    }
    return cudaSuccess;
}

extern "C" {

// Run the operator on a device of so many multiprocessors; `failing` is the launch that the device refuses, or -1.
int run(int32_t format, const edgead::Shape* shape, const edgead::Spec* spec, const void* const* teacher,
        const void* const* student, void* workspace, float* anomaly_map, float* anomaly_score, int count, int turns,
        int failing) {
    multiprocessors = count;
    order = turns;
    failing_launch = failing;
    launches.clear();
    failure[0] = 0;
    features.clear();
    for (int32_t k = 0; k < shape->scales && k < edgead::kMaxScales; ++k) {
        const size_t channels = format == 2 ? (shape->channels[k] + 7) / 8 * 8 : shape->channels[k];
        const size_t elements = channels * shape->batch * shape->feature_height[k] * shape->feature_width[k];
        for (const void* side : {teacher[k], student[k]}) {
            const char* begin = static_cast<const char*>(side);
            features.push_back({begin, begin + elements * (format == 0 ? 4 : 2)});
        }
    }
    return edgead::launch_anomaly_map(static_cast<edgead::Format>(format), *shape, *spec, teacher, student, workspace,
                                      anomaly_map, anomaly_score, nullptr);
}

// Launch one kernel, by its place in KERNELS of edgead/plugin/kernels.py, with what Python planned.
int launch_kernel(int which, uint32_t blocks, uint32_t threads, size_t shared_bytes, edgead::Arguments* arguments) {
    using namespace edgead;
    const Kernel all[] = {edgead_cosine_float, edgead_cosine_half, edgead_cosine_half8, edgead_fuse_and_smooth};
    void* parameters[] = {arguments};
    order = 0;
    failing_launch = -1;
    failure[0] = 0;
    features.clear();
    return cudaLaunchKernel(reinterpret_cast<const void*>(all[which]), dim3(blocks), dim3(threads), parameters,
                            shared_bytes, nullptr);
}

size_t workspace_bytes(const edgead::Shape* shape, const edgead::Spec* spec) {
    return edgead::workspace_bytes(*shape, *spec);
}

const char* what_failed() { return failure; }
int launch_count() { return static_cast<int>(launches.size()); }
uint32_t launch_blocks(int i) { return launches[i].blocks; }
size_t launch_shared_bytes(int i) { return launches[i].shared_bytes; }
const edgead::Arguments* launch_arguments(int i) { return &launches[i].arguments; }
size_t arguments_size() { return sizeof(edgead::Arguments); }
int error_left() { return cudaGetLastError(); }
}
