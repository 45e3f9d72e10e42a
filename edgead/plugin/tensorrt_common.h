// What the two generations of TensorRT's plugin interface share: the node's attributes, parsed strictly, the sizes and
// format of the features, and the call of the launcher.
//
// TensorRT calls a plugin through functions that are noexcept, so nothing here throws: a function that can fail says
// why to TensorRT's logger and returns false, or the nonzero status that TensorRT takes for failure.

#pragma once

#include <NvInfer.h>

#include <atomic>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "anomaly_map.h"

#if NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH < 80601
#error "edgead's plugin needs the headers of TensorRT 8.6.1 or newer; 8.6.0 has another registry of plugins"
#endif

namespace edgead {

constexpr const char* kName = "AnomalyMap";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "edgead";
constexpr int32_t kOutputs = 2;  // anomaly_map, anomaly_score

// Set by TensorRT where it loaded this library itself; findLogger() knows whose call a thread is in.
inline std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

// Report an error as one line, to TensorRT's logger or, before there is one, to standard error. Returns false.
__attribute__((format(printf, 1, 2))) inline bool fail(const char* format, ...) noexcept {
    char line[256] = "edgead::AnomalyMap: ";
    const size_t used = std::strlen(line);
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(line + used, sizeof(line) - used, format, arguments);
    va_end(arguments);
    nvinfer1::ILogger* logger = nullptr;
    try {
        if (nvinfer1::ILoggerFinder* finder = logger_finder.load()) logger = finder->findLogger();
        if (logger == nullptr) logger = getLogger();
    } catch (...) {
        // findLogger() is not noexcept. The line still goes to standard error.
    }
    if (logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, line);
    } else {
        std::fprintf(stderr, "%s\n", line);
    }
    return false;
}

// What a plugin is made of. `scales` is no attribute of the node: it is half the number of inputs, and 0 until
// TensorRT gives the inputs.
static_assert(kMaxScales == 4, "a weight of 1 for each scale");
struct Attributes {
    int32_t height = 0, width = 0;
    Spec spec{0, 4.0f, 1, {1.0f, 1.0f, 1.0f, 1.0f}};
    int32_t scales = 0;
    int32_t weights = 0;  // number of weights that the node gave; 0 for factors of 1, and in an engine
};

inline bool valid(const Attributes& a) noexcept {
    if (a.height < 1 || a.height > kMaxSize || a.width < 1 || a.width > kMaxSize) {
        return fail("height and width are 1 to %d, not %d and %d", kMaxSize, a.height, a.width);
    }
    if (a.spec.fusion != 0 && a.spec.fusion != 1) return fail("fusion is 0 or 1, not %d", a.spec.fusion);
    // Written so that NaN is refused too.
    if (!(a.spec.sigma >= 0.0f && a.spec.sigma <= kMaxSigma)) {
        return fail("sigma is 0 to %g, not %g", kMaxSigma, a.spec.sigma);
    }
    if (a.spec.align_corners != 0 && a.spec.align_corners != 1) {
        return fail("align_corners is 0 or 1, not %d", a.spec.align_corners);
    }
    for (const float weight : a.spec.weights) {
        if (!(weight > 0.0f && std::isfinite(weight))) return fail("weights are finite and above 0, not %g", weight);
    }
    if (a.weights < 0 || a.weights > kMaxScales) return fail("weights are up to %d, not %d", kMaxScales, a.weights);
    if (a.scales < 0 || a.scales > kMaxScales) return fail("scales are up to %d, not %d", kMaxScales, a.scales);
    return true;
}

// The fields by name; the first kNodeFields are attributes of the ONNX node, the last is in engines only.
enum Field { kHeight, kWidth, kFusion, kSigma, kAlignCorners, kWeights, kScales, kFields };
constexpr int32_t kNodeFields = kScales;
constexpr const char* kFusions[] = {"add", "multiply"};

inline nvinfer1::PluginField field(Field which, const void* data = nullptr, int32_t length = 1) noexcept {
    using Type = nvinfer1::PluginFieldType;
    switch (which) {
        case kHeight: return {"height", data, Type::kINT32, length};
        case kWidth: return {"width", data, Type::kINT32, length};
        case kFusion: return {"fusion", data, Type::kCHAR, length};
        case kSigma: return {"sigma", data, Type::kFLOAT32, length};
        case kAlignCorners: return {"align_corners", data, Type::kINT32, length};
        case kWeights: return {"weights", data, Type::kFLOAT32, length};
        case kScales: return {"scales", data, Type::kINT32, length};
        case kFields: break;
    }
    return {};
}

inline bool read_fusion(const nvinfer1::PluginField& f, int32_t& fusion) noexcept {
    const char* text = static_cast<const char*>(f.data);
    // The ONNX parser counts the closing zero as a character, Python's bindings do not.
    const size_t length = strnlen(text, static_cast<size_t>(f.length));
    for (int32_t k = 0; k < 2; ++k) {
        if (length == std::strlen(kFusions[k]) && std::memcmp(text, kFusions[k], length) == 0) {
            fusion = k;
            return true;
        }
    }
    return fail("fusion is 'add' or 'multiply', not '%.*s'", static_cast<int>(length), text);
}

// Fill `attributes` from the fields of an ONNX node, or, where `in_engine`, from those that an engine holds. Height and
// width have to be there, of an engine all; what else is missing has the operator's default. False, reported, for a
// field that is unknown, given twice, of another type or out of its range.
inline bool parse(const nvinfer1::PluginFieldCollection* fields, bool in_engine, Attributes& attributes) noexcept {
    if (fields == nullptr || fields->nbFields < 0 || (fields->nbFields > 0 && fields->fields == nullptr)) {
        return fail("no fields were given");
    }
    const int32_t known = in_engine ? kFields : kNodeFields;
    bool seen[kFields] = {};
    for (int32_t i = 0; i < fields->nbFields; ++i) {
        const nvinfer1::PluginField& f = fields->fields[i];
        int32_t which = 0;
        while (which < known && (f.name == nullptr || std::strcmp(f.name, field(Field(which)).name) != 0)) ++which;
        if (which == known) return fail("unknown field '%s'", f.name == nullptr ? "" : f.name);
        if (seen[which]) return fail("field '%s' is given twice", f.name);
        seen[which] = true;
        const nvinfer1::PluginField expected = field(Field(which));
        const int32_t least = which == kWeights && in_engine ? kMaxScales : 1;
        const int32_t most = which == kFusion ? INT32_MAX : which == kWeights ? kMaxScales : 1;
        if (f.type != expected.type || f.data == nullptr || f.length < least || f.length > most) {
            return fail("field '%s' has type %d and length %d, not type %d and %d value%s", f.name,
                        static_cast<int>(f.type), f.length, static_cast<int>(expected.type), least,
                        most > least ? " or more" : least > 1 ? "s" : "");
        }
        Attributes& a = attributes;
        if (which == kWeights && !in_engine) a.weights = f.length;
        void* const places[kFields] = {&a.height, &a.width, nullptr, &a.spec.sigma, &a.spec.align_corners,
                                       a.spec.weights, &a.scales};
        static_assert(sizeof(a.height) == 4 && sizeof(a.spec.sigma) == 4, "every number is 4 bytes");
        if (which == kFusion) {
            if (!read_fusion(f, a.spec.fusion)) return false;
        } else {
            std::memcpy(places[which], f.data, 4 * static_cast<size_t>(f.length));
        }
    }
    for (int32_t which = 0; which < known; ++which) {
        if (!seen[which] && (in_engine || which == kHeight || which == kWidth)) {
            return fail("field '%s' is missing", field(Field(which)).name);
        }
    }
    return valid(attributes);
}

// K where there are 2 K inputs and both outputs; 0, reported, where they are no such number.
inline int32_t scales_of(int32_t inputs, int32_t outputs) noexcept {
    if (inputs < 2 || inputs % 2 != 0 || inputs > 2 * kMaxScales || outputs != kOutputs) {
        fail("takes the features of teacher and student at 1 to %d scales and gives %d outputs, not %d inputs and %d "
             "outputs", kMaxScales, kOutputs, inputs, outputs);
        return 0;
    }
    return inputs / 2;
}

// Sizes of the features, of which dims(i) are those of input i; false, reported, where they are no pairs, or do not fit
// the weights.
template <typename DimsOf>
bool shape_of(const Attributes& a, int32_t scales, DimsOf dims, Shape& shape) noexcept {
    if (a.weights != 0 && a.weights != scales) return fail("%d weights do not fit %d scales", a.weights, scales);
    shape = Shape{};
    shape.height = a.height;
    shape.width = a.width;
    shape.scales = scales;
    for (int32_t i = 0; i < 2 * scales; ++i) {
        const nvinfer1::Dims& d = dims(i);
        const int32_t k = i % scales;
        if (d.nbDims != 4) return fail("input %d has %d dimensions, not N, C, H, W", i, d.nbDims);
        for (int32_t axis = 0; axis < 4; ++axis) {
            // TensorRT 10 widened dimensions to 64 bits.
            const int64_t size = d.d[axis];
            if (size < 1 || size > (axis < 2 ? INT32_MAX : kMaxSize)) {
                return fail("dimension %d of input %d is %lld", axis, i, static_cast<long long>(size));
            }
            int32_t* const places[4] = {&shape.batch, &shape.channels[k], &shape.feature_height[k],
                                        &shape.feature_width[k]};
            const bool first = axis == 0 ? i == 0 : i < scales;
            if (first) *places[axis] = static_cast<int32_t>(size);
            if (*places[axis] != size) {
                return fail("dimension %d of input %d is %lld, of its pair %d", axis, i, static_cast<long long>(size),
                            *places[axis]);
            }
        }
    }
    return true;
}

inline bool format_of(const nvinfer1::PluginTensorDesc& features, Format& format) noexcept {
    using nvinfer1::DataType;
    using nvinfer1::TensorFormat;
    if (features.type == DataType::kFLOAT && features.format == TensorFormat::kLINEAR) {
        format = Format::kFloat;
    } else if (features.type == DataType::kHALF && features.format == TensorFormat::kLINEAR) {
        format = Format::kHalf;
    } else if (features.type == DataType::kHALF && features.format == TensorFormat::kHWC8) {
        format = Format::kHalf8;
    } else {
        return false;
    }
    return true;
}

// Whether tensor `pos` may be as it is, given those before it: all features alike, the outputs FP32 NCHW.
template <typename DescOf>
bool supports(int32_t pos, int32_t inputs, DescOf desc) noexcept {
    const nvinfer1::PluginTensorDesc& tensor = desc(pos);
    if (pos >= inputs) {
        return tensor.type == nvinfer1::DataType::kFLOAT && tensor.format == nvinfer1::TensorFormat::kLINEAR;
    }
    Format format;
    return format_of(tensor, format) && tensor.type == desc(0).type && tensor.format == desc(0).format;
}

// The sizes of the outputs: (N, 1, height, width) and (N).
inline void output_shapes(const Attributes& a, const nvinfer1::DimsExprs& features, nvinfer1::IExprBuilder& builder,
                          nvinfer1::DimsExprs outputs[kOutputs]) noexcept {
    outputs[0].nbDims = 4;
    outputs[0].d[0] = features.d[0];
    outputs[0].d[1] = builder.constant(1);
    outputs[0].d[2] = builder.constant(a.height);
    outputs[0].d[3] = builder.constant(a.width);
    outputs[1].nbDims = 1;
    outputs[1].d[0] = features.d[0];
}

// Enqueue the operator; 0, or 1 and a report.
inline int32_t enqueue_anomaly_map(const Attributes& a, const nvinfer1::PluginTensorDesc* features,
                                   const void* const* inputs, void* const* outputs, void* workspace,
                                   cudaStream_t stream) noexcept {
    if (a.scales == 0) return !fail("got no inputs that fit before it was run");
    Shape shape;
    Format format;
    if (!shape_of(a, a.scales, [=](int32_t i) -> const nvinfer1::Dims& { return features[i].dims; }, shape)) return 1;
    if (!format_of(features[0], format)) return !fail("was given features of a format that it does not support");
    try {
        const cudaError_t status =
            launch_anomaly_map(format, shape, a.spec, inputs, inputs + a.scales, workspace,
                               static_cast<float*>(outputs[0]), static_cast<float*>(outputs[1]), stream);
        return status == cudaSuccess ? 0 : !fail("%s", cudaGetErrorString(status));
    } catch (...) {
        return !fail("the launcher threw an exception");
    }
}

// Device memory that these features take, in bytes. There is no way to answer that it is unknown, and too little
// would be written past; more than any device has ends the building of the engine.
template <typename DimsOf>
size_t workspace_of(const Attributes& a, int32_t scales, DimsOf dims) noexcept {
    constexpr size_t more_than_any = size_t{1} << 62;
    Shape shape;
    if (scales == 0 || !shape_of(a, scales, dims, shape)) return more_than_any;
    try {
        return workspace_bytes(shape, a.spec);
    } catch (...) {
        fail("the size of the workspace is unknown");
        return more_than_any;
    }
}

}  // namespace edgead
