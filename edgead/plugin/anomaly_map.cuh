// Device code of the operator edgead::AnomalyMap: its two launches.
//
// 1. edgead_cosine_float, _half, _half8: the cosine maps of all scales. A few KiB an image, they go to the workspace.
// 2. edgead_fuse_and_smooth: resize, fuse, smooth, maximum.
//
// No operation depends on the order in which blocks or threads run: sums have a fixed order, and the one atomic takes
// the maximum of integers that are ordered as the floats are, which is the same in any order. So equal inputs give
// equal bits. Kept free of CUDA's headers, so that NVRTC compiles it where no toolkit is installed.

#pragma once

#include "cosine_maps.cuh"
#include "fuse_and_smooth.cuh"
