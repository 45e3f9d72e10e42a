// The part of TensorRT that a plugin meets: logger, registry, expressions of dimensions.

#pragma once

#include <NvInfer.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

using namespace nvinfer1;

#if NV_TENSORRT_MAJOR >= 10
using Creator = IPluginCreatorInterface;
using Size = int64_t;
#else
using Creator = IPluginCreator;
using Size = int32_t;
#endif

class Logger : public ILogger {
public:
    void log(Severity severity, const char* line) noexcept override {
        std::printf("log %d %s\n", static_cast<int>(severity), line);
    }
};

class LoggerFinder : public ILoggerFinder {
public:
    ILogger* findLogger() override { return &logger; }
    Logger logger;
};

// As TensorRT's does, refuses a creator that is registered already.
class Registry : public IPluginRegistry {
public:
    bool registerCreator(Creator& creator, const char* const space) noexcept {
        return creators.emplace(std::string(space), &creator).second;
    }
    bool deregisterCreator(const Creator& creator) noexcept {
        for (auto it = creators.begin(); it != creators.end(); ++it) {
            if (it->second == &creator) return creators.erase(it), true;
        }
        return false;
    }
    std::map<std::string, Creator*> creators;  // by namespace; there is one plugin

    // What no plugin of ours calls; which of these there are depends on TensorRT's version.
    void setErrorRecorder(IErrorRecorder* const) noexcept {}
    IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }
    bool isParentSearchEnabled() const { return false; }
    void setParentSearchEnabled(bool const) {}
    PluginLibraryHandle loadLibrary(char const*) noexcept { return nullptr; }
    void deregisterLibrary(PluginLibraryHandle) noexcept {}
    IPluginCreator* const* getPluginCreatorList(int32_t* const) const noexcept { return nullptr; }
    IPluginCreator* getPluginCreator(char const*, char const*, char const* = "") noexcept { return nullptr; }
#if NV_TENSORRT_MAJOR >= 10
    bool registerCreator(IPluginCreator&, char const* const) noexcept { return false; }
    bool deregisterCreator(IPluginCreator const&) noexcept { return false; }
    Creator* const* getAllCreators(int32_t* const) const noexcept { return nullptr; }
    Creator* const* getAllCreatorsRecursive(int32_t* const) noexcept { return nullptr; }
    Creator* getCreator(char const*, char const*, char const* = "") noexcept { return nullptr; }
    IPluginResource* acquirePluginResource(char const*, IPluginResource*) noexcept { return nullptr; }
    int32_t releasePluginResource(char const*) noexcept { return 0; }
#endif
};

class Expression : public IDimensionExpr {
public:
    explicit Expression(Size value) : impl_(value) { mImpl = &impl_; }

private:
    struct Impl : apiv::VDimensionExpr {
        explicit Impl(Size v) : value(v) {}
        bool isConstant() const { return value >= 0; }
        Size getConstantValue() const { return value; }
        bool isSizeTensor() const { return false; }
        Size value;
    } impl_;
};

class Expressions : public IExprBuilder {
public:
    Expressions() { mImpl = &impl_; }

private:
    struct Impl : apiv::VExprBuilder {
        const IDimensionExpr* constant(Size value) {
            made.push_back(std::make_unique<Expression>(value));
            return made.back().get();
        }
        const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) {
            return nullptr;
        }
        const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) {
            return nullptr;
        }
        std::vector<std::unique_ptr<Expression>> made;
    } impl_;
};

Registry& registry() {
    static Registry instance;
    return instance;
}

extern "C" IPluginRegistry* getPluginRegistry() noexcept { return &registry(); }
extern "C" ILogger* getLogger() noexcept { return nullptr; }
