// What the formats that are read and written here call the types of tensors. One table.
#pragma once

#include <torch/torch.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace athanor {

struct DtypeNames {
  torch::ScalarType dtype;
  const char* python;       // torch.<name>
  const char* storage;      // torch.<name>Storage; null: newer than typed storages
  const char* safetensors;  // null: it has none
  const char* numpy;        // of a .npy header without the byte order; null: it has none
  const char* option;       // in configurations ("checkpoint.export_dtype"); null: not offered
};

std::span<const DtypeNames> AllDtypes();
const DtypeNames* FindDtype(torch::ScalarType dtype);  // null: in no file that is read here

std::optional<torch::ScalarType> DtypeOfPython(std::string_view name);
std::optional<torch::ScalarType> DtypeOfStorage(std::string_view name);
std::optional<torch::ScalarType> DtypeOfSafetensors(std::string_view name);
std::optional<torch::ScalarType> DtypeOfNumpy(std::string_view name);
std::optional<torch::ScalarType> DtypeOfOption(std::string_view name);

// "F64 F32 …": every name of one of the columns, for messages.
std::string NamesOf(const char* DtypeNames::* column, std::string_view between = " ");

}  // namespace athanor
