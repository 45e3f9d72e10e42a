// A camera for OpenCV's V4L2 backend, preloaded into its process: it answers the system calls on the path in FAKE_V4L2
// as a driver for USB cameras does. Like such a driver it takes the nearest value that it has.
//
//     formats   MJPG (FAKE_V4L2_JPEG is the file of each image) and YUYV (grey)
//     sizes     640x480 and 1280x720
//     rates     30 and 15 per second
//     exposure  1 to 5000 steps of 100 us, if it is not automatic
//
// The timestamp of an image is 20 ms before the call that fetches it.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr unsigned BUFFERS = 8, LONGEST = 1280 * 720 * 2;
constexpr long AGE_NS = 20'000'000;

int device = -1;
unsigned format = V4L2_PIX_FMT_YUYV, width = 640, height = 480, rate = 30, queued[BUFFERS], waiting = 0;
int exposure = 157, automatic = V4L2_EXPOSURE_APERTURE_PRIORITY;

template <typename Function> Function real(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

int fails(int code) {
    errno = code;
    return -1;
}

int negotiate(v4l2_format* wanted, bool keep) {
    if (wanted->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fails(EINVAL);
    v4l2_pix_format& pix = wanted->fmt.pix;
    if (pix.pixelformat != V4L2_PIX_FMT_MJPEG) pix.pixelformat = V4L2_PIX_FMT_YUYV;
    bool large = pix.width > 960;
    pix.width = large ? 1280 : 640;
    pix.height = large ? 720 : 480;
    pix.field = V4L2_FIELD_NONE;
    pix.bytesperline = pix.pixelformat == V4L2_PIX_FMT_YUYV ? pix.width * 2 : 0;
    pix.sizeimage = pix.width * pix.height * 2;
    if (keep) format = pix.pixelformat, width = pix.width, height = pix.height;
    return 0;
}

int fill(v4l2_buffer* buffer) {
    timespec period{0, 1'000'000'000L / rate};
    nanosleep(&period, nullptr);
    if (waiting == 0) return fails(EAGAIN);
    unsigned index = queued[0];
    memmove(queued, queued + 1, --waiting * sizeof *queued);
    static unsigned char image[LONGEST];
    size_t length = width * height * 2;
    if (format == V4L2_PIX_FMT_MJPEG) {
        int file = real<int (*)(const char*, int, ...)>("open")(getenv("FAKE_V4L2_JPEG"), O_RDONLY);
        length = read(file, image, LONGEST);
        close(file);
    } else {
        memset(image, 128, length);
    }
    if (pwrite(device, image, length, static_cast<off_t>(index) * LONGEST) < 0) return -1;
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long stamp = now.tv_sec * 1'000'000'000LL + now.tv_nsec - AGE_NS;
    buffer->index = index;
    buffer->bytesused = length;
    buffer->length = LONGEST;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->timestamp.tv_sec = stamp / 1'000'000'000;
    buffer->timestamp.tv_usec = stamp % 1'000'000'000 / 1000;
    return 0;
}

int control(v4l2_control* value, bool change) {
    if (value->id == V4L2_CID_EXPOSURE_AUTO) {
        if (change) automatic = value->value;
        value->value = automatic;
        return 0;
    }
    if (value->id != V4L2_CID_EXPOSURE_ABSOLUTE) return fails(EINVAL);
    if (change && automatic != V4L2_EXPOSURE_MANUAL) return fails(EIO);
    if (change) exposure = value->value < 1 ? 1 : value->value > 5000 ? 5000 : value->value;
    value->value = exposure;
    return 0;
}

int answer(unsigned long request, void* argument) {
    switch (request) {
    case VIDIOC_QUERYCAP: {
        auto* capability = static_cast<v4l2_capability*>(argument);
        *capability = {};
        strcpy(reinterpret_cast<char*>(capability->driver), "fake");
        capability->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    }
    case VIDIOC_S_FMT: return negotiate(static_cast<v4l2_format*>(argument), true);
    case VIDIOC_TRY_FMT: return negotiate(static_cast<v4l2_format*>(argument), false);
    case VIDIOC_G_FMT: {
        auto* present = static_cast<v4l2_format*>(argument);
        present->fmt.pix.pixelformat = format;
        present->fmt.pix.width = width;
        return negotiate(present, false);
    }
    case VIDIOC_S_PARM: {
        v4l2_fract& period = static_cast<v4l2_streamparm*>(argument)->parm.capture.timeperframe;
        rate = period.denominator > 22 * period.numerator ? 30 : 15;
        period = {1, rate};
        return 0;
    }
    case VIDIOC_G_PARM: {
        auto* parameters = static_cast<v4l2_streamparm*>(argument);
        parameters->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        parameters->parm.capture.timeperframe = {1, rate};
        return 0;
    }
    case VIDIOC_S_CTRL: return control(static_cast<v4l2_control*>(argument), true);
    case VIDIOC_G_CTRL: return control(static_cast<v4l2_control*>(argument), false);
    case VIDIOC_QUERYCTRL: {
        auto* query = static_cast<v4l2_queryctrl*>(argument);
        bool is_time = query->id == V4L2_CID_EXPOSURE_ABSOLUTE;
        if (!is_time && query->id != V4L2_CID_EXPOSURE_AUTO) return fails(EINVAL);
        query->minimum = is_time;
        query->maximum = is_time ? 5000 : 3;
        query->step = 1;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        auto* wanted = static_cast<v4l2_requestbuffers*>(argument);
        if (wanted->count > BUFFERS) wanted->count = BUFFERS;
        waiting = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        auto* buffer = static_cast<v4l2_buffer*>(argument);
        buffer->length = LONGEST;
        buffer->m.offset = buffer->index * LONGEST;
        return 0;
    }
    case VIDIOC_QBUF: queued[waiting++] = static_cast<v4l2_buffer*>(argument)->index; return 0;
    case VIDIOC_DQBUF: return fill(static_cast<v4l2_buffer*>(argument));
    case VIDIOC_STREAMOFF: waiting = 0; return 0;
    case VIDIOC_STREAMON:
    case VIDIOC_S_INPUT: return 0;
    default: return fails(ENOTTY);
    }
}

int open_path(const char* name, const char* path, int flags, mode_t mode) {
    const char* fake = getenv("FAKE_V4L2");
    if (fake == nullptr || strcmp(path, fake) != 0) {
        return real<int (*)(const char*, int, ...)>(name)(path, flags, mode);
    }
    device = memfd_create("fake-v4l2", 0);
    if (ftruncate(device, static_cast<off_t>(BUFFERS) * LONGEST) != 0) return -1;
    return device;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, int);
    va_end(rest);
    return open_path("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, int);
    va_end(rest);
    return open_path("open64", path, flags, mode);
}

int ioctl(int descriptor, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void* argument = va_arg(rest, void*);
    va_end(rest);
    if (descriptor != device || device < 0) {
        return real<int (*)(int, unsigned long, ...)>("ioctl")(descriptor, request, argument);
    }
    return answer(request, argument);
}
}
