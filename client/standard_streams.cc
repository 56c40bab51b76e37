#include "client/standard_streams.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <streambuf>

#include "client/exit_codes.h"

namespace athanor {
namespace {

class DescriptorBuffer : public std::streambuf {
 public:
  explicit DescriptorBuffer(int fd) : fd_(fd) { setp(buffer_.data(), buffer_.data() + buffer_.size()); }
  int error() const { return error_; }

 protected:
  int overflow(int c) override {
    if (sync() != 0) return traits_type::eof();
    if (!traits_type::eq_int_type(c, traits_type::eof())) sputc(traits_type::to_char_type(c));
    return traits_type::not_eof(c);
  }
  int sync() override {
    const char* next = pbase();
    while (error_ == 0 && next < pptr()) {
      const ssize_t written = write(fd_, next, static_cast<size_t>(pptr() - next));
      if (written >= 0) {
        next += written;
      } else if (errno == EAGAIN) {
        pollfd ready = {fd_, POLLOUT, 0};
        poll(&ready, 1, -1);
      } else if (errno != EINTR) {
        error_ = errno;
      }
    }
    setp(buffer_.data(), buffer_.data() + buffer_.size());
    return error_ == 0 ? 0 : -1;
  }

 private:
  const int fd_;
  int error_ = 0;
  std::array<char, 64 * 1024> buffer_;
};

DescriptorBuffer& Output() {
  static DescriptorBuffer& buffer = *new DescriptorBuffer(STDOUT_FILENO);
  return buffer;
}

}  // namespace

void SetUpStandardStreams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    // Opened for reading only, descriptor 1 refuses what is written, as it did while it was closed.
    const int taken = open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
    if (taken != fd) _exit(kFailure);
  }
  signal(SIGPIPE, SIG_IGN);
  std::cout.rdbuf(&Output());
}

bool OutputIsGood() {
  return Output().error() == 0;
}

int FinishOutput(int exit_code) {
  std::cout.flush();
  if (OutputIsGood()) return exit_code;
  if (Output().error() == EPIPE) return exit_code == kOk ? kReaderGone : exit_code;
  std::cerr << "athanor: cannot write the output: " << strerror(Output().error()) << "\n";
  return exit_code == kOk ? kFailure : exit_code;
}

}  // namespace athanor
