// Changes that know a format: lengths, offsets and checksums that fit again, opcodes, whole chunks and words.
#pragma once

#include <string>

#include "tests/fuzz/replay.h"

namespace athanor::fuzz {

void MutateSafetensors(Mutator& random, std::string& input);
void MutatePickle(Mutator& random, std::string& input);
void MutateZip(Mutator& random, std::string& input);
void MutateText(Mutator& random, std::string& input);
void MutateJpeg(Mutator& random, std::string& input);
void MutatePng(Mutator& random, std::string& input);

}  // namespace athanor::fuzz
