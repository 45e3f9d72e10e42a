// The launcher of anomaly_map.cu on a GPU: every layout against a float64 reference on the host, twice for equal bits,
// the second time as a replayed CUDA graph, which is timed. Plain C++, so that compute-sanitizer is quick.
//
//     launcher [small]     prints one line of JSON for each case and layout; exit code 1 if one is wrong
//
// `small` leaves out large batches and timing. `copy_gb_a_second` counts the bytes that a copy within the GPU's memory
// reads and writes; `share_of_copy_speed` is the time of reading every feature once at that speed, divided by the time
// of the launch.

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "anomaly_map.h"

using namespace edgead;

#define CHECK(call)                                                                            \
    do {                                                                                       \
        const cudaError_t status = (call);                                                     \
        if (status != cudaSuccess) {                                                           \
            std::fprintf(stderr, "%s:%d %s\n", __FILE__, __LINE__, cudaGetErrorString(status)); \
            std::exit(1);                                                                      \
        }                                                                                      \
    } while (0)

struct Case {
    const char* name;
    int batch, height, width, scales, channels[4], heights[4], widths[4], fusion;
    float sigma;
    int align_corners;
    float weights[4];
};

constexpr Case kCases[] = {
    {"lite0", 2, 64, 48, 3, {24, 40, 112}, {16, 8, 4}, {12, 6, 3}, 0, 4.0f, 1, {0.25f, 0.75f, 2.0f}},
    {"odd", 3, 35, 31, 2, {5, 6}, {7, 3}, {9, 5}, 0, 1.0f, 0, {1.0f, 1.0f}},
    {"multiply, 4 scales", 2, 37, 67, 4, {24, 40, 112, 17}, {16, 8, 4, 2}, {12, 6, 3, 2}, 1, 2.0f, 1, {1.0f, 1.0f, 1.0f, 1.0f}},
    {"sigma 32", 1, 20, 12, 1, {8}, {6}, {6}, 0, 32.0f, 1, {1.0f}},
    {"wide resnet", 1, 256, 256, 3, {256, 512, 1024}, {64, 32, 16}, {64, 32, 16}, 0, 4.0f, 1, {1.0f, 1.0f, 1.0f}},
    {"batch 16 of 1024", 16, 1024, 1024, 3, {24, 40, 112}, {256, 128, 64}, {256, 128, 64}, 0, 4.0f, 1, {1.0f, 1.0f, 1.0f}},
};

using Values = std::vector<double>;

// Bilinear value of a map at a fractional position.
double at(const Values& map, int height, int width, double y, double x) {
    const int y0 = static_cast<int>(y), x0 = static_cast<int>(x);
    const int y1 = std::min(y0 + 1, height - 1), x1 = std::min(x0 + 1, width - 1);
    const double fy = y - y0, fx = x - x0;
    const double upper = map[y0 * width + x0] * (1 - fx) + map[y0 * width + x1] * fx;
    const double lower = map[y1 * width + x0] * (1 - fx) + map[y1 * width + x1] * fx;
    return upper * (1 - fy) + lower * fy;
}

double source(int position, int out, int in, int align_corners) {
    if (align_corners) return out > 1 ? static_cast<double>(position) * (in - 1) / (out - 1) : 0.0;
    return std::min(std::max((position + 0.5) * in / out - 0.5, 0.0), in - 1.0);
}

int mirrored(int position, int size) {
    const int folded = ((position % (2 * size)) + 2 * size) % (2 * size);
    return folded < size ? folded : 2 * size - 1 - folded;
}

Values cosine_map(const Case& c, int k, const std::vector<std::vector<float>>& features) {
    const int pixels = c.heights[k] * c.widths[k];
    Values map(pixels);
    for (int x = 0; x < pixels; ++x) {
        double ts = 0, tt = 0, ss = 0;
        for (int channel = 0; channel < c.channels[k]; ++channel) {
            const size_t i = (static_cast<size_t>(c.batch - 1) * c.channels[k] + channel) * pixels + x;
            const double t = features[k][i], s = features[c.scales + k][i];
            ts += t * s;
            tt += t * t;
            ss += s * s;
        }
        map[x] = 1 - ts / std::max(std::sqrt(tt), 1e-8) / std::max(std::sqrt(ss), 1e-8);
    }
    return map;
}

Values smoothed(const Case& c, Values map) {
    const int radius = static_cast<int>(4.0 * c.sigma + 0.5);
    Values weights(2 * radius + 1);
    double total = 0;
    for (int d = -radius; d <= radius; ++d) {
        total += weights[d + radius] = std::exp(-0.5 * d * d / (static_cast<double>(c.sigma) * c.sigma));
    }
    for (const bool vertical : {false, true}) {
        Values out(map.size());
        for (int y = 0; y < c.height; ++y) {
            for (int x = 0; x < c.width; ++x) {
                double value = 0;
                for (int d = -radius; d <= radius; ++d) {
                    const int row = vertical ? mirrored(y + d, c.height) : y;
                    const int column = vertical ? x : mirrored(x + d, c.width);
                    value += weights[d + radius] / total * map[static_cast<size_t>(row) * c.width + column];
                }
                out[static_cast<size_t>(y) * c.width + x] = value;
            }
        }
        map = out;
    }
    return map;
}

// The map of the last image of the batch, in float64.
Values reference(const Case& c, const std::vector<std::vector<float>>& features) {
    Values fused(static_cast<size_t>(c.height) * c.width, c.fusion ? 1.0 : 0.0);
    for (int k = 0; k < c.scales; ++k) {
        const Values map = cosine_map(c, k, features);
        for (int y = 0; y < c.height; ++y) {
            for (int x = 0; x < c.width; ++x) {
                const double value = c.weights[k] * at(map, c.heights[k], c.widths[k], source(y, c.height, c.heights[k], c.align_corners),
                                        source(x, c.width, c.widths[k], c.align_corners));
                double& pixel = fused[static_cast<size_t>(y) * c.width + x];
                pixel = c.fusion ? pixel * value : pixel + value;
            }
        }
    }
    return smoothed(c, fused);
}

// A feature tensor on the GPU in one layout; channels that pad HWC8 are NaN, since no kernel may read them.
void* uploaded(const Case& c, int k, const std::vector<float>& values, Format format, size_t& bytes) {
    const size_t pixels = static_cast<size_t>(c.heights[k]) * c.widths[k];
    void* device = nullptr;
    if (format == Format::kFloat) {
        bytes = values.size() * sizeof(float);
        CHECK(cudaMalloc(&device, bytes));
        CHECK(cudaMemcpy(device, values.data(), bytes, cudaMemcpyHostToDevice));
        return device;
    }
    const size_t channels = c.channels[k], stored = format == Format::kHalf ? channels : (channels + 7) / 8 * 8;
    std::vector<__half> halves(c.batch * stored * pixels, __float2half(NAN));
    for (size_t n = 0; n < static_cast<size_t>(c.batch); ++n) {
        for (size_t channel = 0; channel < channels; ++channel) {
            for (size_t x = 0; x < pixels; ++x) {
                const size_t to = format == Format::kHalf ? (n * stored + channel) * pixels + x
                                                          : (n * pixels + x) * stored + channel;
                halves[to] = __float2half(values[(n * channels + channel) * pixels + x]);
            }
        }
    }
    bytes = halves.size() * sizeof(__half);
    CHECK(cudaMalloc(&device, bytes));
    CHECK(cudaMemcpy(device, halves.data(), bytes, cudaMemcpyHostToDevice));
    return device;
}

// Mean seconds of one replay of captured work.
double seconds_of(cudaStream_t stream, int repeats, const std::function<void()>& work) {
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&replay, graph, 0));
    CHECK(cudaGraphLaunch(replay, stream));
    CHECK(cudaStreamSynchronize(stream));
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) CHECK(cudaGraphLaunch(replay, stream));
    CHECK(cudaStreamSynchronize(stream));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    CHECK(cudaGraphExecDestroy(replay));
    CHECK(cudaGraphDestroy(graph));
    return taken.count() / repeats;
}

double copied_bytes_a_second(cudaStream_t stream) {
    constexpr size_t bytes = size_t{1} << 30;
    void *from, *to;
    CHECK(cudaMalloc(&from, bytes));
    CHECK(cudaMalloc(&to, bytes));
    CHECK(cudaMemset(from, 1, bytes));
    const double seconds =
        seconds_of(stream, 20, [&] { CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream)); });
    CHECK(cudaFree(from));
    CHECK(cudaFree(to));
    return 2.0 * bytes / seconds;
}

bool run(const Case& c, Format format, const std::vector<std::vector<float>>& features, const Values& expected,
         cudaStream_t stream, double copy_speed) {
    Shape shape{};
    shape.batch = c.batch;
    shape.height = c.height;
    shape.width = c.width;
    shape.scales = c.scales;
    std::vector<void*> device(2 * c.scales);
    size_t feature_bytes = 0;
    for (int i = 0; i < 2 * c.scales; ++i) {
        const int k = i % c.scales;
        shape.channels[k] = c.channels[k];
        shape.feature_height[k] = c.heights[k];
        shape.feature_width[k] = c.widths[k];
        size_t bytes;
        device[i] = uploaded(c, k, features[i], format, bytes);
        feature_bytes += bytes;
    }
    Spec spec{c.fusion, c.sigma, c.align_corners, {}};
    std::copy(c.weights, c.weights + 4, spec.weights);
    const size_t pixels = static_cast<size_t>(c.height) * c.width;
    void* workspace;
    float *map, *score;
    CHECK(cudaMalloc(&workspace, workspace_bytes(shape, spec)));
    CHECK(cudaMalloc(&map, c.batch * pixels * sizeof(float)));
    CHECK(cudaMalloc(&score, c.batch * sizeof(float)));
    const auto launch = [&] {
        CHECK(launch_anomaly_map(format, shape, spec, device.data(), device.data() + c.scales, workspace, map, score,
                                 stream));
    };
    std::vector<float> first(c.batch * pixels), again(first.size()), scores(c.batch);
    launch();
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy(first.data(), map, first.size() * sizeof(float), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(scores.data(), score, scores.size() * sizeof(float), cudaMemcpyDeviceToHost));
    const double seconds = seconds_of(stream, copy_speed > 0 ? 50 : 2, launch);
    CHECK(cudaMemcpy(again.data(), map, again.size() * sizeof(float), cudaMemcpyDeviceToHost));

    const size_t last = (c.batch - 1) * pixels;
    double error = 0;
    for (size_t i = 0; i < pixels; ++i) {
        const double difference = std::fabs(first[last + i] - expected[i]);
        // Written so that NaN is the largest error.
        if (!(difference <= error)) error = std::isnan(difference) ? 1e9 : difference;
    }
    const float highest = *std::max_element(first.begin() + last, first.end());
    const bool score_is_max = highest == scores[c.batch - 1];
    const bool same_bits = std::memcmp(first.data(), again.data(), first.size() * sizeof(float)) == 0;
    const bool good = error < 2e-5 && score_is_max && same_bits;
    const char* layouts[] = {"float", "half", "half8"};
    std::printf("{\"case\": \"%s\", \"layout\": \"%s\", \"error\": %.2e, \"score_is_max\": %s, \"same_bits\": %s", c.name,
                layouts[static_cast<int>(format)], error, score_is_max ? "true" : "false", same_bits ? "true" : "false");
    if (copy_speed > 0) {
        std::printf(", \"us\": %.2f, \"share_of_copy_speed\": %.3f, \"copy_gb_a_second\": %.1f", seconds * 1e6,
                    feature_bytes / copy_speed / seconds, copy_speed / 1e9);
    }
    std::printf(", \"ok\": %s}\n", good ? "true" : "false");
    std::fflush(stdout);
    for (void* pointer : device) CHECK(cudaFree(pointer));
    for (void* pointer : {workspace, static_cast<void*>(map), static_cast<void*>(score)}) CHECK(cudaFree(pointer));
    return good;
}

int main(int count, char** values) {
    const bool small = count > 1 && std::strcmp(values[1], "small") == 0;
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const double copy_speed = small ? 0 : copied_bytes_a_second(stream);
    bool good = true;
    for (const Case& c : kCases) {
        if (small && c.batch > 8) continue;
        std::mt19937 generator(1);
        std::normal_distribution<float> normal;
        std::vector<std::vector<float>> features(2 * c.scales);
        for (int i = 0; i < 2 * c.scales; ++i) {
            const int k = i % c.scales;
            features[i].resize(static_cast<size_t>(c.batch) * c.channels[k] * c.heights[k] * c.widths[k]);
            // Values of float16, so that every layout holds the same.
            for (float& value : features[i]) value = __half2float(__float2half(normal(generator)));
        }
        const Values expected = reference(c, features);
        for (const Format format : {Format::kFloat, Format::kHalf, Format::kHalf8}) {
            good = run(c, format, features, expected, stream, copy_speed) && good;
        }
    }
    CHECK(cudaStreamDestroy(stream));
    return good ? 0 : 1;
}
