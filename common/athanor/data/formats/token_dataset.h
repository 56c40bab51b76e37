// Windows of a file of token numbers for next-token prediction, memory mapped: a file larger than memory costs nothing
// to open. Input: block_size tokens; target: the same, one further. Both N x block_size, int64.
//
//   ASSIGN_OR_RETURN(auto train, TokenDataset::Open("train.bin", {.block_size = 1024}));
//
// Formats: bare uint16 or uint32 tokens in the machine's byte order (nanoGPT), the same behind a header of 256 int32
// (llm.c: magic 20240520 for uint16, 20240801 for uint32, version, number of tokens), and arrays of one dimension of
// numpy.save (uint16, uint32, int32). Headers are recognised.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/io/mapped_file.h"

namespace athanor {

struct TokenOptions {
  int64_t block_size = 1024;
  int64_t stride = 0;      // between the starts of windows; 0 = block_size (no overlap)
  int token_bytes = 2;     // of files without a header: 2 or 4
  int64_t vocabulary = 0;  // tokens must be below it; 0: not checked
};

class TokenDataset : public Dataset {
 public:
  // NOT_FOUND names the file; INVALID_ARGUMENT the option; DATA_LOSS a file that is cut or shorter than one window.
  static absl::StatusOr<std::shared_ptr<TokenDataset>> Open(const std::string& path, const TokenOptions& options);

  int64_t size() const override { return windows_; }
  // DATA_LOSS names the window and the token that is not in the vocabulary.
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override;
  bool may_leave_out() const override { return false; }
  int64_t tokens() const { return tokens_; }

 private:
  TokenDataset(MappedFile file, std::string path, const TokenOptions& options)
      : file_(std::move(file)), path_(std::move(path)), options_(options) {}
  int64_t Token(int64_t at) const;

  MappedFile file_;
  std::string path_;
  TokenOptions options_;
  int64_t offset_ = 0;  // of the first token, bytes
  int64_t tokens_ = 0;
  int64_t windows_ = 0;
};

}  // namespace athanor
