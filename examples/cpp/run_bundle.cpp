// Scores PNG images with a bundle of edgead, without Python: the view, pixels, scores and verdicts of edgead predict.
//
//     run_bundle BUNDLE [--part NAME] IMAGE.png...
//
// It prints one line for each image: verdict, score, threshold, file. An image that cannot be scored is an error line on
// standard error, and the exit code is then 5. What edgead does and this program does not, it refuses by name: tiles,
// parts that are turned, polygons, ignore masks, targets other than the CPU. Files are not compared with their hashes.

#include <onnxruntime_cxx_api.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using nlohmann::json;

constexpr int kSchema = 9;
// Colour of pixels that are not inspected, as in edgead/imaging/framing.py.
const cv::Scalar kFill(124, 116, 104);

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

// What a bundle says of its model.
struct Model {
  cv::Size size;
  std::string fit;
  cv::Rect roi;  // empty for the whole image
  std::string part;
  double threshold;
};

// Returns the rectangle of a region of interest, whose corners may be in any order.
cv::Rect rectangle(const json& corners) {
  std::vector<cv::Point> points;
  for (const json& corner : corners) points.emplace_back(corner.at(0).get<int>(), corner.at(1).get<int>());
  if (points.empty()) return {};
  int left = points[0].x, top = points[0].y, right = left, bottom = top;
  for (const cv::Point& point : points) {
    left = std::min(left, point.x), right = std::max(right, point.x);
    top = std::min(top, point.y), bottom = std::max(bottom, point.y);
  }
  for (const cv::Point& corner : {cv::Point(left, top), {right, top}, {right, bottom}, {left, bottom}})
    if (points.size() != 4 || std::count(points.begin(), points.end(), corner) != 1)
      fail("the region of interest is a polygon, which this program does not know");
  return {left, top, right - left, bottom - top};
}

Model read_model(const std::string& bundle, const std::string& asked) {
  std::ifstream file(bundle + "/manifest.json");
  if (!file) fail(bundle + " has no manifest.json, so it is not a bundle");
  const json manifest = json::parse(file);
  if (manifest.at("schema") != kSchema) fail("the bundle has another schema than " + std::to_string(kSchema));
  if (manifest.at("backend") != "onnxruntime") fail("the bundle is not for ONNX Runtime: build it for the target cpu");
  const json& steps = manifest.at("preprocess");
  const json known = {{"shrink", "area"}, {"enlarge", "linear"}, {"colour", "RGB"}, {"dtype", "uint8"}, {"layout", "NHWC"}};
  for (const auto& [name, value] : known.items())
    if (steps.at(name) != value) fail("the bundle has the unknown preprocessing " + name);
  const json& view = manifest.at("view");
  if (!view.at("overlap").is_null()) fail("the bundle cuts images into tiles, which this program does not");
  if (!view.at("ignore").get<std::string>().empty()) fail("the bundle has an ignore mask, which this program does not know");
  if (view.at("fit") == "turn") fail("the bundle turns parts, which this program does not");
  const json& thresholds = manifest.at("thresholds");
  if (asked.empty() && thresholds.size() != 1) fail("the model knows several parts: give --part NAME");
  const std::string part = asked.empty() ? thresholds.begin().key() : asked;
  if (!thresholds.contains(part)) fail("the model knows no part " + part);
  return {{steps.at("width_px").get<int>(), steps.at("height_px").get<int>()},
          view.at("fit").get<std::string>(),
          rectangle(view.at("roi")),
          part,
          thresholds.at(part).at("value").get<double>()};
}

// Reads a PNG file of 8 bits without opacity. Gamma and colour profiles are not applied.
cv::Mat read_png(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) fail(path + " cannot be opened");
  png_structp png = png_create_read_struct(
      PNG_LIBPNG_VER_STRING, nullptr, [](png_structp, png_const_charp text) { fail(text); },
      [](png_structp, png_const_charp) {});
  png_infop info = png_create_info_struct(png);
  const auto free_png = [&info](png_struct* one) { png_destroy_read_struct(&one, &info, nullptr); };
  const std::unique_ptr<png_struct, decltype(free_png)> owner(png, free_png);
  png_init_io(png, file.get());
  png_read_png(png, info, PNG_TRANSFORM_EXPAND | PNG_TRANSFORM_GRAY_TO_RGB, nullptr);
  if (png_get_bit_depth(png, info) != 8 || png_get_channels(png, info) != 3)
    fail(path + " has 16 bits or opacity, which this program does not read");
  if (png_get_valid(png, info, PNG_INFO_eXIf)) fail(path + " has EXIF data, which this program does not apply");
  cv::Mat image(static_cast<int>(png_get_image_height(png, info)), static_cast<int>(png_get_image_width(png, info)), CV_8UC3);
  for (int row = 0; row < image.rows; ++row) std::copy_n(png_get_rows(png, info)[row], 3 * image.cols, image.ptr(row));
  return image;
}

// Axes that shrink are averaged over areas, then axes that grow are interpolated linearly.
cv::Mat resized(const cv::Mat& image, cv::Size size) {
  cv::Mat result = image;
  const cv::Size smaller(std::min(image.cols, size.width), std::min(image.rows, size.height));
  if (smaller != image.size()) cv::resize(image, result, smaller, 0, 0, cv::INTER_AREA);
  if (smaller != size) cv::resize(result.clone(), result, size, 0, 0, cv::INTER_LINEAR);
  return result;
}

// Rounds halves to even, as Python does, to 1 or more.
int rounded(double value, int most) { return std::min(most, std::max(1, static_cast<int>(std::nearbyint(value)))); }

// Brings an image to the model's size, and sets the rectangle of the canvas that is inspected.
cv::Mat framed(const cv::Mat& image, const Model& model, cv::Rect& target) {
  const cv::Rect whole(0, 0, image.cols, image.rows);
  cv::Rect source = model.roi.empty() ? whole : model.roi;
  if ((source & whole) != source) fail("the region of interest is outside of the image");
  const int width = model.size.width, height = model.size.height;
  const double down = static_cast<double>(height) / source.height, across = static_cast<double>(width) / source.width;
  target = {0, 0, width, height};
  if (model.fit == "crop") {
    const double scale = std::max(down, across);
    const cv::Size kept(rounded(width / scale, source.width), rounded(height / scale, source.height));
    source = {source.x + (source.width - kept.width) / 2, source.y + (source.height - kept.height) / 2, kept.width, kept.height};
  } else if (model.fit == "pad") {
    const double scale = std::min(down, across);
    const cv::Size fitted(rounded(source.width * scale, width), rounded(source.height * scale, height));
    target = {(width - fitted.width) / 2, (height - fitted.height) / 2, fitted.width, fitted.height};
  } else if (model.fit != "stretch") {
    fail("the bundle has the unknown fit " + model.fit);
  }
  cv::Mat canvas(height, width, CV_8UC3, kFill);
  resized(image(source), target.size()).copyTo(canvas(target));
  return canvas;
}

class Session {
 public:
  explicit Session(const std::string& path) {
    Ort::SessionOptions options;
    options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
    // As edgead opens a session: Q/DQ nodes are computed as they are written, and waiting threads do not spin.
    options.AddConfigEntry("session.disable_quant_qdq", "1");
    options.AddConfigEntry("session.intra_op.allow_spinning", "0");
    session_ = Ort::Session(environment_, path.c_str(), options);
  }

  // Scores one image; the map is 0, and the score is its largest value, where the image is not inspected.
  float score(cv::Mat& canvas, cv::Rect target) {
    const std::vector<int64_t> shape{1, canvas.rows, canvas.cols, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const Ort::Value images = Ort::Value::CreateTensor<uint8_t>(
        memory, canvas.data, canvas.total() * canvas.elemSize(), shape.data(), shape.size());
    const char* input = "images";
    const char* outputs[] = {"anomaly_map", "anomaly_score"};
    auto found = session_.Run(Ort::RunOptions{}, &input, &images, 1, outputs, 2);
    if (target.size() == canvas.size()) return *found[1].GetTensorData<float>();
    const cv::Mat map(canvas.rows, canvas.cols, CV_32FC1, found[0].GetTensorMutableData<float>());
    double largest = 0.0;
    cv::minMaxLoc(map(target), nullptr, &largest);
    return std::max(0.0F, static_cast<float>(largest));
  }

 private:
  Ort::Env environment_{ORT_LOGGING_LEVEL_FATAL, "run_bundle"};
  Ort::Session session_{nullptr};
};

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> words(arguments + 1, arguments + count);
  std::string part;
  const auto option = std::find(words.begin(), words.end(), "--part");
  if (option != words.end() && option + 1 != words.end()) {
    part = *(option + 1);
    words.erase(option, option + 2);
  }
  if (words.size() < 2) {
    std::cerr << "usage: run_bundle BUNDLE [--part NAME] IMAGE.png...\n";
    return 2;
  }
  int exit_code = 0;
  try {
    const Model model = read_model(words[0], part);
    Session session(words[0] + "/model.onnx");
    for (auto path = words.begin() + 1; path != words.end(); ++path) {
      try {
        cv::Rect target;
        cv::Mat canvas = framed(read_png(*path), model, target);
        const float score = session.score(canvas, target);
        if (!std::isfinite(score)) fail("the score is no finite number");
        std::printf("%s %.9g %.17g %s\n", score > model.threshold ? "anomalous" : "good", score, model.threshold, path->c_str());
      } catch (const std::exception& error) {
        std::cerr << "error: " << *path << ": " << error.what() << "\n";
        exit_code = 5;
      }
    }
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return exit_code;
}
