// The TensorRT plugin edgead::AnomalyMap, version 1: how a library is loaded, and which generation of the interface it
// speaks. The rest is in tensorrt_v3.h (TensorRT 10 and newer), tensorrt_v2.h (8.6) and tensorrt_common.h.
//
// There are two ways in. A program may open the library as any other (LD_PRELOAD, DeepStream, Triton, `trtexec
// --staticPlugins`); then it has to register its creator by itself. Or TensorRT opens it (IPluginRegistry::loadLibrary,
// `trtexec --dynamicPlugins`, an engine that has the library inside) and asks for its creators; then it refuses a
// library whose creator is registered already. Both are served: the creator is registered when the library is opened,
// and steps aside when TensorRT asks.
//
// A library that registers by itself calls the registry through the table of functions of its headers. TensorRT 8.6.1
// reordered the one of 8.6.0, so the call of another version may be any function. Therefore the versions are compared
// first. If TensorRT 10 or newer asks, only the creator's table is used, which NVIDIA keeps for version-compatible
// engines.

#include "tensorrt_common.h"

#if NV_TENSORRT_MAJOR >= 10
#include "tensorrt_v3.h"
#define EDGEAD_GET_CREATORS getCreators
using Creator = nvinfer1::IPluginCreatorInterface;
#else
#include "tensorrt_v2.h"
#define EDGEAD_GET_CREATORS getPluginCreators
using Creator = nvinfer1::IPluginCreator;
#endif

#define EDGEAD_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

edgead::AnomalyMapCreator creator;

bool same_version() noexcept { return getInferLibVersion() == static_cast<int32_t>(NV_TENSORRT_VERSION); }

// REGISTER_TENSORRT_PLUGIN would do it in the empty namespace.
bool register_creator() noexcept {
    if (!same_version()) {
        // Not to TensorRT's logger, which is called through a table too.
        std::fprintf(stderr, "edgead::AnomalyMap: compiled with TensorRT %d, not registered in TensorRT %d\n",
                     static_cast<int>(NV_TENSORRT_VERSION), static_cast<int>(getInferLibVersion()));
        return false;
    }
    nvinfer1::IPluginRegistry* registry = getPluginRegistry();
    return registry != nullptr && registry->registerCreator(creator, edgead::kNamespace);
}

bool registered_here = register_creator();

}  // namespace

EDGEAD_EXPORT Creator* const* EDGEAD_GET_CREATORS(int32_t& count) {
    static Creator* const creators[] = {&creator};
    // TensorRT asks again when it lets go of the library; by then the creator is TensorRT's.
    if (registered_here) registered_here = !getPluginRegistry()->deregisterCreator(creator);
    count = NV_TENSORRT_MAJOR >= 10 || same_version() ? 1 : 0;
    return creators;
}

// For edgead's loader, which refuses the library if they differ.
EDGEAD_EXPORT int32_t edgead_tensorrt_of_headers() { return static_cast<int32_t>(NV_TENSORRT_VERSION); }
EDGEAD_EXPORT int32_t edgead_tensorrt_of_library() { return getInferLibVersion(); }

EDGEAD_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { edgead::logger_finder = finder; }
