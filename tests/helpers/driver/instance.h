// One plugin as the driver sees it, whichever generation of the interface it speaks.

#pragma once

#include "runtime.h"

struct Tensors {
    std::vector<Dims> dims;
    DataType type;
    TensorFormat format;
};

PluginTensorDesc desc_of(const Dims& dims, DataType type, TensorFormat format) { return {dims, type, format, -1.0f}; }

// Features and the two outputs as TensorRT describes them when it builds: the batch is free, up to twice what it is.
std::vector<DynamicPluginTensorDesc> dynamic(const Tensors& features, const Dims& map, const Dims& score) {
    std::vector<DynamicPluginTensorDesc> descs;
    const size_t inputs = features.dims.size();
    for (size_t i = 0; i < inputs + 2; ++i) {
        const bool input = i < inputs;
        Dims dims = input ? features.dims[i] : i == inputs ? map : score;
        DynamicPluginTensorDesc d{};
        d.min = d.max = dims;
        d.min.d[0] = 1;
        d.max.d[0] *= 2;
#if NV_TENSORRT_MAJOR >= 10
        d.opt = dims;
#endif
        dims.d[0] = -1;
        d.desc = desc_of(dims, input ? features.type : DataType::kFLOAT,
                         input ? features.format : TensorFormat::kLINEAR);
        descs.push_back(d);
    }
    return descs;
}

std::vector<PluginTensorDesc> fixed(const Tensors& features, int64_t batch_factor = 1) {
    std::vector<PluginTensorDesc> descs;
    for (Dims dims : features.dims) {
        dims.d[0] *= static_cast<Size>(batch_factor);
        descs.push_back(desc_of(dims, features.type, features.format));
    }
    return descs;
}

#if NV_TENSORRT_MAJOR >= 10

class Instance {
public:
    explicit Instance(IPluginV3* plugin) : plugin_(plugin) {}
    explicit operator bool() const { return plugin_ != nullptr; }

    static Instance create(Creator* creator, const std::vector<PluginField>& fields, bool in_engine) {
        const PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
        const auto phase = in_engine ? TensorRTPhase::kRUNTIME : TensorRTPhase::kBUILD;
        return Instance(static_cast<IPluginCreatorV3One*>(creator)->createPlugin("head", &collection, phase));
    }

    Instance clone() { return Instance(plugin_->clone()); }
    Instance attach() { return Instance(runtime()->attachToContext(nullptr)); }
    std::string names() {
        return std::string(core()->getPluginNamespace()) + "::" + core()->getPluginName() + " " +
               core()->getPluginVersion();
    }
    int32_t outputs() { return build()->getNbOutputs(); }

    bool types(int32_t inputs, std::vector<DataType>& types) {
        const std::vector<DataType> features(static_cast<size_t>(inputs), DataType::kHALF);
        types.assign(2, DataType::kINT8);
        return build()->getOutputDataTypes(types.data(), 2, features.data(), inputs) == 0;
    }
    bool shapes(const std::vector<DimsExprs>& features, Expressions& builder, DimsExprs* outputs) {
        return build()->getOutputShapes(features.data(), static_cast<int32_t>(features.size()), nullptr, 0, outputs, 2,
                                        builder) == 0;
    }
    bool supports(int32_t pos, const std::vector<PluginTensorDesc>& tensors) {
        std::vector<DynamicPluginTensorDesc> descs(tensors.size());
        for (size_t i = 0; i < tensors.size(); ++i) descs[i].desc = tensors[i];
        return build()->supportsFormatCombination(pos, descs.data(), static_cast<int32_t>(tensors.size()) - 2, 2);
    }
    bool configure(const std::vector<DynamicPluginTensorDesc>& d) {
        const auto inputs = static_cast<int32_t>(d.size()) - 2;
        return build()->configurePlugin(d.data(), inputs, d.data() + inputs, 2) == 0;
    }
    size_t workspace(const std::vector<DynamicPluginTensorDesc>& d, const Tensors&) {
        const auto inputs = static_cast<int32_t>(d.size()) - 2;
        return build()->getWorkspaceSize(d.data(), inputs, d.data() + inputs, 2);
    }
    bool prepare(const std::vector<PluginTensorDesc>& features) {
        const PluginTensorDesc outputs[2]{};
        return runtime()->onShapeChange(features.data(), static_cast<int32_t>(features.size()), outputs, 2) == 0;
    }
    int32_t enqueue(const PluginTensorDesc* features, const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) {
        const PluginTensorDesc outs[2]{};
        return runtime()->enqueue(features, outs, inputs, outputs, workspace, stream);
    }

    std::string serialize() {
        std::string text;
        const PluginFieldCollection* collection = runtime()->getFieldsToSerialize();
        for (int32_t i = 0; i < collection->nbFields; ++i) {
            const PluginField& f = collection->fields[i];
            text += std::string(" ") + f.name + ":";
            if (f.type == PluginFieldType::kINT32) text += "i:" + std::to_string(*static_cast<const int32_t*>(f.data));
            if (f.type == PluginFieldType::kFLOAT32) {
                const auto* numbers = static_cast<const float*>(f.data);
                text += f.length == 1 ? "f:" : "v:";
                for (int32_t k = 0; k < f.length; ++k) text += (k ? "," : "") + std::to_string(numbers[k]);
            }
            if (f.type == PluginFieldType::kCHAR) {
                text += "s:" + std::string(static_cast<const char*>(f.data), static_cast<size_t>(f.length) - 1);
            }
        }
        return text.substr(1);
    }
    Instance reopen(Creator* creator) {
        // TensorRT copies the fields into the engine; so they are copied here, and the original may go.
        const PluginFieldCollection* collection = runtime()->getFieldsToSerialize();
        std::vector<std::string> names, data;
        std::vector<PluginField> fields;
        names.reserve(16);
        data.reserve(16);
        for (int32_t i = 0; i < collection->nbFields; ++i) {
            const PluginField& f = collection->fields[i];
            const size_t size = f.type == PluginFieldType::kCHAR ? 1 : 4;
            names.emplace_back(f.name);
            data.emplace_back(static_cast<const char*>(f.data), size * static_cast<size_t>(f.length));
            fields.emplace_back(names.back().c_str(), data.back().data(), f.type, f.length);
        }
        return create(creator, fields, true);
    }

private:
    IPluginV3OneCore* core() { return capability<IPluginV3OneCore>(PluginCapabilityType::kCORE); }
    IPluginV3OneBuild* build() { return capability<IPluginV3OneBuild>(PluginCapabilityType::kBUILD); }
    IPluginV3OneRuntime* runtime() { return capability<IPluginV3OneRuntime>(PluginCapabilityType::kRUNTIME); }
    template <typename Capability>
    Capability* capability(PluginCapabilityType type) {
        return static_cast<Capability*>(plugin_->getCapabilityInterface(type));
    }
    std::unique_ptr<IPluginV3> plugin_;
};

const PluginFieldCollection* fields_of(Creator* creator) {
    return static_cast<IPluginCreatorV3One*>(creator)->getFieldNames();
}
constexpr const char* kGetCreators = "getCreators";

#else

class Instance {
public:
    explicit Instance(IPluginV2* plugin) : plugin_(static_cast<IPluginV2DynamicExt*>(plugin)) {}
    explicit operator bool() const { return plugin_ != nullptr; }

    static Instance create(Creator* creator, const std::vector<PluginField>& fields, bool) {
        const PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
        return Instance(creator->createPlugin("head", &collection));
    }

    Instance clone() { return Instance(plugin_->clone()); }
    Instance attach() { return clone(); }
    std::string names() {
        return std::string(plugin_->getPluginNamespace()) + "::" + plugin_->getPluginType() + " " +
               plugin_->getPluginVersion();
    }
    int32_t outputs() { return plugin_->getNbOutputs(); }

    bool types(int32_t inputs, std::vector<DataType>& types) {
        const std::vector<DataType> features(static_cast<size_t>(inputs), DataType::kHALF);
        types = {plugin_->getOutputDataType(0, features.data(), inputs),
                 plugin_->getOutputDataType(1, features.data(), inputs)};
        return true;
    }
    bool shapes(const std::vector<DimsExprs>& features, Expressions& builder, DimsExprs* outputs) {
        for (int32_t i = 0; i < 2; ++i) {
            const auto inputs = static_cast<int32_t>(features.size());
            outputs[i] = plugin_->getOutputDimensions(i, features.data(), inputs, builder);
            if (outputs[i].nbDims < 0) return false;
        }
        return true;
    }
    bool supports(int32_t pos, const std::vector<PluginTensorDesc>& tensors) {
        return plugin_->supportsFormatCombination(pos, tensors.data(), static_cast<int32_t>(tensors.size()) - 2, 2);
    }
    // This generation is not asked whether it went well; what follows tells.
    bool configure(const std::vector<DynamicPluginTensorDesc>& d) {
        const auto inputs = static_cast<int32_t>(d.size()) - 2;
        plugin_->configurePlugin(d.data(), inputs, d.data() + inputs, 2);
        return true;
    }
    size_t workspace(const std::vector<DynamicPluginTensorDesc>&, const Tensors& features) {
        const auto descs = fixed(features, 2);
        const PluginTensorDesc outputs[2]{};
        return plugin_->getWorkspaceSize(descs.data(), static_cast<int32_t>(descs.size()), outputs, 2);
    }
    bool prepare(const std::vector<PluginTensorDesc>&) { return plugin_->initialize() == 0; }
    int32_t enqueue(const PluginTensorDesc* features, const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) {
        const PluginTensorDesc outs[2]{};
        return plugin_->enqueue(features, outs, inputs, outputs, workspace, stream);
    }

    std::string serialize() {
        std::string text;
        for (const unsigned char byte : bytes()) {
            char hex[3];
            std::snprintf(hex, sizeof(hex), "%02x", byte);
            text += hex;
        }
        return text;
    }
    Instance reopen(Creator* creator) {
        const std::string data = bytes();
        return Instance(creator->deserializePlugin("head", data.data(), data.size()));
    }

private:
    std::string bytes() {
        std::string data(plugin_->getSerializationSize(), '\0');
        plugin_->serialize(&data[0]);
        return data;
    }
    struct Destroy {
        void operator()(IPluginV2DynamicExt* plugin) const { plugin->destroy(); }
    };
    std::unique_ptr<IPluginV2DynamicExt, Destroy> plugin_;
};

const PluginFieldCollection* fields_of(Creator* creator) { return creator->getFieldNames(); }
constexpr const char* kGetCreators = "getPluginCreators";

#endif
