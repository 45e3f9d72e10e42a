// A libnvinfer that has nothing but the registry, for a library of the plugin to be linked with and loaded.

#include "runtime.h"

extern "C" int registered_in_edgead() { return static_cast<int>(registry().creators.count("edgead")); }
