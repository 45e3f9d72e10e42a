// Plays TensorRT to the plugin's library, through its public interface alone, and prints what it is answered: one fact a
// line, for tests/plugin/test_tensorrt_plugin.py to judge.
//
//     driver LIBRARY registry
//     driver LIBRARY create FIELD...                    fields of an ONNX node
//     driver LIBRARY unheard FIELD...                   the same where there is no logger
//     driver LIBRARY reopen FIELD... | BYTES            what an engine holds: fields, of TensorRT 8.6 bytes in hex
//     driver LIBRARY formats INPUTS FIELD...            every combination that is supported
//     driver LIBRARY outputs INPUTS FIELD...
//     driver LIBRARY life FORMAT DIMS... -- FIELD...    from creation to destruction; DIMS as 2x24x16x16
//     driver LIBRARY unconfigured FIELD...              run before the inputs were set
//
// A field is NAME:TYPE:VALUE, TYPE one of i (INT32), l (INT64), f (FLOAT32), d (FLOAT64), s (CHAR, closing zero counted),
// S (CHAR, not counted), p (a pair of INT32), n (INT32 without data).

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <stdexcept>

#include "instance.h"

using Arguments = std::vector<std::string>;

class Fields {
public:
    explicit Fields(const Arguments& specs) {
        for (const std::string& spec : specs) {
            const size_t first = spec.find(':'), second = spec.find(':', first + 1);
            names_.push_back(spec.substr(0, first));
            add(spec.at(first + 1), spec.substr(second + 1));
        }
    }
    std::vector<PluginField> list;

private:
    template <typename Value>
    void number(PluginFieldType type, Value value, int32_t length = 1) {
        data_.emplace_back(reinterpret_cast<const char*>(&value), sizeof(value));
        if (length == 2) data_.back() += data_.back();
        list.emplace_back(names_.back().c_str(), data_.back().data(), type, length);
    }
    void add(char type, const std::string& value) {
        switch (type) {
            case 'i': return number(PluginFieldType::kINT32, static_cast<int32_t>(std::atoll(value.c_str())));
            case 'p': return number(PluginFieldType::kINT32, static_cast<int32_t>(std::atoll(value.c_str())), 2);
            case 'v': {
                std::string numbers;
                for (const char* at = value.c_str(); *at != '\0';) {
                    char* end = nullptr;
                    const float one = std::strtof(at, &end);
                    numbers.append(reinterpret_cast<const char*>(&one), sizeof(one));
                    at = *end == ',' ? end + 1 : end;
                }
                data_.push_back(numbers);
                const auto length = static_cast<int32_t>(numbers.size() / sizeof(float));
                list.emplace_back(names_.back().c_str(), data_.back().data(), PluginFieldType::kFLOAT32, length);
                return;
            }
            case 'f': return number(PluginFieldType::kFLOAT32, std::strtof(value.c_str(), nullptr));
            case 'd': return number(PluginFieldType::kFLOAT64, std::strtod(value.c_str(), nullptr));
#if NV_TENSORRT_MAJOR >= 10
            case 'l': return number(PluginFieldType::kINT64, static_cast<int64_t>(std::atoll(value.c_str())));
#endif
            case 'n': list.emplace_back(names_.back().c_str(), nullptr, PluginFieldType::kINT32, 1); return;
            case 's':
            case 'S': {
                // On the heap to the byte, so that a read past the length is seen.
                texts_.emplace_back(value.begin(), value.end());
                if (type == 's') texts_.back().push_back('\0');
                texts_.back().shrink_to_fit();
                const auto length = static_cast<int32_t>(texts_.back().size());
                list.emplace_back(names_.back().c_str(), texts_.back().data(), PluginFieldType::kCHAR, length);
                return;
            }
            default: throw std::invalid_argument(std::string("field type ") + type);
        }
    }
    std::list<std::string> names_, data_;
    std::list<std::vector<char>> texts_;
};

Dims dims_of(const std::string& text) {
    Dims dims{};
    const char* at = text.c_str();
    while (*at != '\0') {
        char* end = nullptr;
        dims.d[dims.nbDims++] = static_cast<Size>(std::strtoll(at, &end, 10));
        at = *end == 'x' ? end + 1 : end;
    }
    return dims;
}

void print_shape(const DimsExprs& shape, const IDimensionExpr* batch) {
    std::printf("shape");
    for (int32_t i = 0; i < shape.nbDims; ++i) {
        if (shape.d[i] == batch) {
            std::printf(" N");
        } else {
            std::printf(" %lld", static_cast<long long>(shape.d[i]->getConstantValue()));
        }
    }
    std::printf("\n");
}

bool print_outputs(Instance& plugin, int32_t inputs) {
    Expression batch(-1), size(8);
    Expressions builder;
    std::vector<DimsExprs> features(static_cast<size_t>(inputs));
    for (DimsExprs& f : features) {
        f.nbDims = 4;
        f.d[0] = &batch;
        f.d[1] = f.d[2] = f.d[3] = &size;
    }
    DimsExprs shapes[2]{};
    std::vector<DataType> types;
    if (!plugin.shapes(features, builder, shapes) || !plugin.types(inputs, types)) return false;
    for (const DimsExprs& shape : shapes) print_shape(shape, &batch);
    std::printf("types %d %d\n", static_cast<int>(types[0]), static_cast<int>(types[1]));
    return true;
}

// Walks the tree of combinations as TensorRT does: a tensor is asked about once those before it are supported.
void print_formats(Instance& plugin, int32_t inputs) {
    const DataType types[] = {DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32};
    const TensorFormat formats[] = {TensorFormat::kLINEAR, TensorFormat::kCHW2,  TensorFormat::kHWC8,
                                    TensorFormat::kCHW4,   TensorFormat::kCHW32, TensorFormat::kHWC};
    std::vector<PluginTensorDesc> tensors(static_cast<size_t>(inputs) + 2);
    std::function<void(size_t)> visit = [&](size_t pos) {
        if (pos == tensors.size()) {
            std::printf("supported");
            for (const auto& t : tensors) std::printf(" %d/%d", static_cast<int>(t.type), static_cast<int>(t.format));
            std::printf("\n");
            return;
        }
        for (const DataType type : types) {
            for (const TensorFormat format : formats) {
                tensors[pos].type = type;
                tensors[pos].format = format;
                if (plugin.supports(static_cast<int32_t>(pos), tensors)) visit(pos + 1);
            }
        }
    };
    visit(0);
}

Tensors tensors_of(const std::string& format, const Arguments& dims) {
    Tensors tensors{{}, format == "float" ? DataType::kFLOAT : DataType::kHALF,
                    format == "half8" ? TensorFormat::kHWC8 : TensorFormat::kLINEAR};
    for (const std::string& d : dims) tensors.dims.push_back(dims_of(d));
    return tensors;
}

int32_t run(Instance& plugin, const Tensors& features) {
    // Addresses that say whose they are; nobody follows them.
    std::vector<const void*> inputs;
    for (size_t i = 0; i < features.dims.size(); ++i) inputs.push_back(reinterpret_cast<void*>(0x100 * (i + 1)));
    void* const outputs[] = {reinterpret_cast<void*>(0xa00), reinterpret_cast<void*>(0xb00)};
    return plugin.enqueue(fixed(features).data(), inputs.data(), outputs, reinterpret_cast<void*>(0xc00),
                          reinterpret_cast<cudaStream_t>(0xd00));
}

void live(Creator* creator, const Tensors& features, const Fields& fields) {
    Instance node = Instance::create(creator, fields.list, false);
    if (!node) return void(std::printf("refused\n"));
    std::printf("plugin %s outputs %d\n", node.names().c_str(), node.outputs());
    // The network owns a copy, which is configured, asked for its workspace, and written into the engine.
    Instance network = node.clone();
    const auto descs = dynamic(features, dims_of("2x1x8x8"), dims_of("2"));
    std::printf("configure %d\n", network.configure(descs));
    std::printf("workspace %zu\n", network.workspace(descs, features));
    std::printf("serialized %s\n", network.serialize().c_str());
    Instance engine = network.reopen(creator);
    if (!engine) return void(std::printf("refused by the engine\n"));
    std::printf("again %s\n", engine.serialize().c_str());
    Instance context = engine.attach();
    std::printf("prepare %d\n", context.prepare(fixed(features)));
    std::printf("enqueue %d\n", run(context, features));
}

#if NV_TENSORRT_MAJOR >= 10
Instance reopened(Creator* creator, const Arguments& arguments) {
    const Fields fields(arguments);
    return Instance::create(creator, fields.list, true);
}
#else
Instance reopened(Creator* creator, const Arguments& arguments) {
    std::vector<unsigned char> bytes;
    for (size_t i = 0; i < arguments.at(0).size(); i += 2) {
        bytes.push_back(static_cast<unsigned char>(std::stoi(arguments[0].substr(i, 2), nullptr, 16)));
    }
    return Instance(creator->deserializePlugin("head", bytes.data(), bytes.size()));
}
#endif

int main(int count, char** values) {
    const Arguments arguments(values, values + count);
    void* library = dlopen(arguments.at(1).c_str(), RTLD_NOW);
    if (library == nullptr) return std::fprintf(stderr, "%s\n", dlerror()), 1;
    std::printf("TensorRT %d.%d\n", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR);
    for (const auto& entry : registry().creators) std::printf("registered %s\n", entry.first.c_str());

    // From here on as TensorRT itself loads a library.
    LoggerFinder finder;
    using SetLoggerFinder = void (*)(ILoggerFinder*);
    using GetCreators = Creator* const* (*)(int32_t&);
    const std::string& scenario = arguments.at(2);
    const auto set_logger_finder = reinterpret_cast<SetLoggerFinder>(dlsym(library, "setLoggerFinder"));
    set_logger_finder(scenario == "unheard" ? nullptr : &finder);
    const auto get_creators = reinterpret_cast<GetCreators>(dlsym(library, kGetCreators));
    int32_t creators = 0;
    Creator* creator = get_creators(creators)[0];
    const Arguments rest(arguments.begin() + 3, arguments.end());

    if (scenario == "registry") {
        std::printf("creators %d, registered %zu\n", creators, registry().creators.size());
        std::printf("accepted %d\n", registry().registerCreator(*creator, "edgead"));
        get_creators(creators);
        std::printf("creators %d, registered %zu\n", creators, registry().creators.size());
        const PluginFieldCollection* fields = fields_of(creator);
        for (int32_t i = 0; i < fields->nbFields; ++i) {
            std::printf("field %s %d\n", fields->fields[i].name, static_cast<int>(fields->fields[i].type));
        }
    } else if (scenario == "create" || scenario == "unheard") {
        const Fields fields(rest);
        Instance plugin = Instance::create(creator, fields.list, false);
        std::printf("%s\n", plugin ? "created" : "refused");
        if (plugin) std::printf("serialized %s\n", plugin.serialize().c_str());
    } else if (scenario == "reopen") {
        std::printf("%s\n", reopened(creator, rest) ? "created" : "refused");
    } else if (scenario == "formats" || scenario == "outputs") {
        const Fields fields(Arguments(rest.begin() + 1, rest.end()));
        Instance plugin = Instance::create(creator, fields.list, false);
        const int32_t inputs = std::atoi(rest.at(0).c_str());
        if (scenario == "formats") {
            print_formats(plugin, inputs);
        } else if (!print_outputs(plugin, inputs)) {
            std::printf("refused\n");
        }
    } else if (scenario == "life") {
        size_t dashes = 1;
        while (rest.at(dashes) != "--") ++dashes;
        const auto split = rest.begin() + static_cast<std::ptrdiff_t>(dashes);
        live(creator, tensors_of(rest.at(0), Arguments(rest.begin() + 1, split)),
             Fields(Arguments(split + 1, rest.end())));
    } else if (scenario == "unconfigured") {
        const Fields fields(rest);
        Instance plugin = Instance::create(creator, fields.list, false);
        std::printf("enqueue %d\n", run(plugin, tensors_of("float", {"1x8x4x4", "1x8x4x4"})));
    } else {
        return std::fprintf(stderr, "no scenario %s\n", scenario.c_str()), 1;
    }
    return 0;
}
