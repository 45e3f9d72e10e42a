// The version of the library, as a libnvinfer of the same headers has it; LIBRARY_VERSION in the environment plays another.

#include <NvInfer.h>

#include <cstdlib>

extern "C" int32_t getInferLibVersion() noexcept {
    const char* other = std::getenv("LIBRARY_VERSION");
    return other == nullptr ? static_cast<int32_t>(NV_TENSORRT_VERSION) : std::atoi(other);
}
