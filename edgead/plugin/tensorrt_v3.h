// The plugin for TensorRT 10 and newer: IPluginV3, whose state is a collection of fields.

#pragma once

#include <new>

#include "tensorrt_common.h"

namespace edgead {

class AnomalyMapPlugin final : public nvinfer1::IPluginV3,
                               public nvinfer1::IPluginV3OneCore,
                               public nvinfer1::IPluginV3OneBuild,
                               public nvinfer1::IPluginV3OneRuntime {
public:
    explicit AnomalyMapPlugin(const Attributes& attributes) noexcept : attributes_(attributes) {}
    // The fields point into the plugin that they belong to, so a copy makes its own when it is asked.
    AnomalyMapPlugin(const AnomalyMapPlugin& other) noexcept : AnomalyMapPlugin(other.attributes_) {}
    AnomalyMapPlugin& operator=(const AnomalyMapPlugin&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
        switch (type) {
            case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
            case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
            case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    nvinfer1::IPluginV3* clone() noexcept override { return new (std::nothrow) AnomalyMapPlugin(*this); }

    // Core
    const char* getPluginName() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

    // Build
    int32_t getNbOutputs() const noexcept override { return kOutputs; }

    int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t outputs, const nvinfer1::DataType*,
                               int32_t inputs) const noexcept override {
        if (scales_of(inputs, outputs) == 0) return 1;
        for (int32_t i = 0; i < outputs; ++i) types[i] = nvinfer1::DataType::kFLOAT;
        return 0;
    }

    int32_t getOutputShapes(const nvinfer1::DimsExprs* features, int32_t inputs, const nvinfer1::DimsExprs*, int32_t,
                            nvinfer1::DimsExprs* shapes, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override {
        if (scales_of(inputs, outputs) == 0) return 1;
        output_shapes(attributes_, features[0], builder, shapes);
        return 0;
    }

    bool supportsFormatCombination(int32_t pos, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t inputs,
                                   int32_t) noexcept override {
        return supports(pos, inputs, [=](int32_t i) -> const auto& { return tensors[i].desc; });
    }

    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* features, int32_t inputs,
                            const nvinfer1::DynamicPluginTensorDesc*, int32_t outputs) noexcept override {
        return settle(inputs, outputs, [=](int32_t i) -> const auto& { return features[i].max; });
    }

    size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* features, int32_t inputs,
                            const nvinfer1::DynamicPluginTensorDesc*, int32_t outputs) const noexcept override {
        return workspace_of(attributes_, scales_of(inputs, outputs),
                            [=](int32_t i) -> const auto& { return features[i].max; });
    }

    // Runtime
    int32_t onShapeChange(const nvinfer1::PluginTensorDesc* features, int32_t inputs, const nvinfer1::PluginTensorDesc*,
                          int32_t outputs) noexcept override {
        return settle(inputs, outputs, [=](int32_t i) -> const auto& { return features[i].dims; });
    }

    int32_t enqueue(const nvinfer1::PluginTensorDesc* features, const nvinfer1::PluginTensorDesc*,
                    const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override {
        return enqueue_anomaly_map(attributes_, features, inputs, outputs, workspace, stream);
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
        const char* fusion = kFusions[attributes_.spec.fusion];
        fields_[kHeight] = field(kHeight, &attributes_.height);
        fields_[kWidth] = field(kWidth, &attributes_.width);
        fields_[kFusion] = field(kFusion, fusion, static_cast<int32_t>(std::strlen(fusion)) + 1);
        fields_[kSigma] = field(kSigma, &attributes_.spec.sigma);
        fields_[kAlignCorners] = field(kAlignCorners, &attributes_.spec.align_corners);
        fields_[kWeights] = field(kWeights, attributes_.spec.weights, kMaxScales);
        fields_[kScales] = field(kScales, &attributes_.scales);
        collection_ = {kFields, fields_};
        return &collection_;
    }

private:
    // Check sizes, and remember the number of scales: enqueue() does not get the number of inputs.
    template <typename DimsOf>
    int32_t settle(int32_t inputs, int32_t outputs, DimsOf dims) noexcept {
        Shape shape;
        const int32_t scales = scales_of(inputs, outputs);
        if (scales == 0 || !shape_of(attributes_, scales, dims, shape)) return 1;
        attributes_.scales = scales;
        return 0;
    }

    Attributes attributes_;
    nvinfer1::PluginField fields_[kFields];
    nvinfer1::PluginFieldCollection collection_{};
};

class AnomalyMapCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    AnomalyMapCreator() noexcept {
        for (int32_t which = 0; which < kNodeFields; ++which) fields_[which] = field(Field(which));
    }

    const char* getPluginName() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

    nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override {
        Attributes attributes;
        if (!parse(fields, phase == nvinfer1::TensorRTPhase::kRUNTIME, attributes)) return nullptr;
        return new (std::nothrow) AnomalyMapPlugin(attributes);
    }

private:
    nvinfer1::PluginField fields_[kNodeFields];
    const nvinfer1::PluginFieldCollection collection_{kNodeFields, fields_};
};

}  // namespace edgead
