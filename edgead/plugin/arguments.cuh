// The arguments of both kernels of the anomaly map, and what they have in common.

#pragma once

#include "anomaly_map.h"

namespace edgead {

constexpr int32_t kThreads = 256;
constexpr int32_t kWarps = kThreads / 32;
constexpr int32_t kTile = 32;       // a block makes kTile x kTile pixels of the map
constexpr int32_t kUnroll = 4;      // 16-byte loads of each side that a thread has in flight
constexpr int32_t kResident = 3;    // blocks that a multiprocessor holds at least: up to 80 registers a thread, without
                                    // which the compiler issues half of those loads late, and spills on sm_100
constexpr float kEpsilon = 1e-8f;   // EPSILON of edgead/imaging/anomaly_map.py

// One scale: its features, and how their positions are cut into blocks.
struct Scale {
    const void* teacher;
    const void* student;
    int64_t map_offset;   // of its cosine maps (N, H_k, W_k) in the workspace, in floats
    int32_t channels, height, width;
    int32_t pixels;       // positions that a thread loads at once: 16 bytes, or 1 position where alignment forbids it
    int32_t lanes;        // neighbouring threads: along positions (N C H W) or along channels (N H W C); a power of two
    int32_t first_block;  // of this scale in the launch
    float weight;         // factor of its cosine map
};

// Arguments of both kernels.
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

}  // namespace edgead
