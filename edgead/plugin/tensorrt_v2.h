// The plugin for TensorRT 8.6: IPluginV2DynamicExt, whose state is a string of bytes.

#pragma once

#include <new>
#include <type_traits>

#include "tensorrt_common.h"

// Its base was marked deprecated before its successor was there.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace edgead {

// What an engine of TensorRT 8.6 holds of the plugin. Engines are read by the kind of machine that wrote them.
struct Serialized {
    int32_t layout = 2;
    Attributes attributes;
};
static_assert(std::is_trivially_copyable<Serialized>::value && sizeof(Serialized) == 48, "an engine holds these bytes");

class AnomalyMapPlugin final : public nvinfer1::IPluginV2DynamicExt {
public:
    explicit AnomalyMapPlugin(const Attributes& attributes) noexcept : attributes_(attributes) {}

    const char* getPluginType() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }
    // An engine finds its plugins by their namespace, so there is one only.
    void setPluginNamespace(const char*) noexcept override {}

    int32_t getNbOutputs() const noexcept override { return kOutputs; }

    nvinfer1::DataType getOutputDataType(int32_t, const nvinfer1::DataType*, int32_t) const noexcept override {
        return nvinfer1::DataType::kFLOAT;
    }

    nvinfer1::DimsExprs getOutputDimensions(int32_t output, const nvinfer1::DimsExprs* features, int32_t inputs,
                                            nvinfer1::IExprBuilder& builder) noexcept override {
        nvinfer1::DimsExprs shapes[kOutputs]{};
        if (output < 0 || output >= kOutputs || scales_of(inputs, kOutputs) == 0) return {-1, {}};
        output_shapes(attributes_, features[0], builder, shapes);
        return shapes[output];
    }

    bool supportsFormatCombination(int32_t pos, const nvinfer1::PluginTensorDesc* tensors, int32_t inputs,
                                   int32_t) noexcept override {
        return supports(pos, inputs, [=](int32_t i) -> const auto& { return tensors[i]; });
    }

    // Returns nothing, so it forgets the scales where the inputs do not fit, and enqueue() fails.
    void configurePlugin(const nvinfer1::DynamicPluginTensorDesc* features, int32_t inputs,
                         const nvinfer1::DynamicPluginTensorDesc*, int32_t outputs) noexcept override {
        Shape shape;
        const int32_t scales = scales_of(inputs, outputs);
        const auto dims = [=](int32_t i) -> const auto& { return features[i].max; };
        attributes_.scales = scales != 0 && shape_of(attributes_, scales, dims, shape) ? scales : 0;
    }

    size_t getWorkspaceSize(const nvinfer1::PluginTensorDesc* features, int32_t inputs,
                            const nvinfer1::PluginTensorDesc*, int32_t outputs) const noexcept override {
        return workspace_of(attributes_, scales_of(inputs, outputs),
                            [=](int32_t i) -> const auto& { return features[i].dims; });
    }

    int32_t enqueue(const nvinfer1::PluginTensorDesc* features, const nvinfer1::PluginTensorDesc*,
                    const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override {
        return enqueue_anomaly_map(attributes_, features, inputs, outputs, workspace, stream);
    }

    int32_t initialize() noexcept override { return 0; }
    void terminate() noexcept override {}
    void destroy() noexcept override { delete this; }

    nvinfer1::IPluginV2DynamicExt* clone() const noexcept override {
        return new (std::nothrow) AnomalyMapPlugin(attributes_);
    }

    size_t getSerializationSize() const noexcept override { return sizeof(Serialized); }

    void serialize(void* buffer) const noexcept override {
        Serialized serialized;
        serialized.attributes = attributes_;
        std::memcpy(buffer, &serialized, sizeof(serialized));
    }

private:
    Attributes attributes_;
};

class AnomalyMapCreator final : public nvinfer1::IPluginCreator {
public:
    AnomalyMapCreator() noexcept {
        for (int32_t which = 0; which < kNodeFields; ++which) fields_[which] = field(Field(which));
    }

    const char* getPluginName() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }
    void setPluginNamespace(const char*) noexcept override {}
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

    nvinfer1::IPluginV2* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields) noexcept override {
        Attributes attributes;
        if (!parse(fields, false, attributes)) return nullptr;
        return new (std::nothrow) AnomalyMapPlugin(attributes);
    }

    nvinfer1::IPluginV2* deserializePlugin(const char*, const void* data, size_t length) noexcept override {
        Serialized serialized;
        if (data == nullptr || length != sizeof(serialized)) {
            fail("an engine holds %zu bytes of it, not %zu: build the engine again", length, sizeof(serialized));
            return nullptr;
        }
        std::memcpy(&serialized, data, sizeof(serialized));
        if (serialized.layout != Serialized{}.layout) {
            fail("an engine holds layout %d of it, not %d: build the engine again", serialized.layout,
                 Serialized{}.layout);
            return nullptr;
        }
        if (!valid(serialized.attributes)) return nullptr;
        return new (std::nothrow) AnomalyMapPlugin(serialized.attributes);
    }

private:
    nvinfer1::PluginField fields_[kNodeFields];
    const nvinfer1::PluginFieldCollection collection_{kNodeFields, fields_};
};

}  // namespace edgead

#pragma GCC diagnostic pop
