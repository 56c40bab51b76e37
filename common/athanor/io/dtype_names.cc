#include "athanor/io/dtype_names.h"

namespace athanor {
namespace {

constexpr DtypeNames kDtypes[] = {
    {torch::kFloat64, "float64", "Double", "F64", "f8", "fp64"},
    {torch::kFloat32, "float32", "Float", "F32", "f4", "fp32"},
    {torch::kFloat16, "float16", "Half", "F16", "f2", "fp16"},
    {torch::kBFloat16, "bfloat16", "BFloat16", "BF16", nullptr, "bf16"},
    {torch::kInt64, "int64", "Long", "I64", "i8", nullptr},
    {torch::kInt32, "int32", "Int", "I32", "i4", nullptr},
    {torch::kInt16, "int16", "Short", "I16", "i2", nullptr},
    {torch::kInt8, "int8", "Char", "I8", "i1", nullptr},
    {torch::kUInt8, "uint8", "Byte", "U8", "u1", nullptr},
    {torch::kUInt16, "uint16", nullptr, "U16", "u2", nullptr},
    {torch::kUInt32, "uint32", nullptr, "U32", "u4", nullptr},
    {torch::kUInt64, "uint64", nullptr, "U64", "u8", nullptr},
    {torch::kBool, "bool", "Bool", "BOOL", "b1", nullptr},
    {torch::kFloat8_e4m3fn, "float8_e4m3fn", nullptr, "F8_E4M3", nullptr, nullptr},
    {torch::kFloat8_e5m2, "float8_e5m2", nullptr, "F8_E5M2", nullptr, nullptr},
    {torch::kFloat8_e4m3fnuz, "float8_e4m3fnuz", nullptr, "F8_E4M3FNUZ", nullptr, nullptr},
    {torch::kFloat8_e5m2fnuz, "float8_e5m2fnuz", nullptr, "F8_E5M2FNUZ", nullptr, nullptr},
    {torch::kFloat8_e8m0fnu, "float8_e8m0fnu", nullptr, "F8_E8M0", nullptr, nullptr},
    {torch::kFloat4_e2m1fn_x2, "float4_e2m1fn_x2", nullptr, "F4", nullptr, nullptr},
    {torch::kComplexHalf, "complex32", nullptr, nullptr, nullptr, nullptr},
    {torch::kComplexFloat, "complex64", "ComplexFloat", "C64", "c8", nullptr},
    {torch::kComplexDouble, "complex128", "ComplexDouble", nullptr, "c16", nullptr},
};

std::optional<torch::ScalarType> Find(const char* DtypeNames::* column, std::string_view name) {
  for (const DtypeNames& one : kDtypes) {
    if (one.*column != nullptr && name == one.*column) return one.dtype;
  }
  return std::nullopt;
}

}  // namespace

std::span<const DtypeNames> AllDtypes() {
  return kDtypes;
}

const DtypeNames* FindDtype(torch::ScalarType dtype) {
  for (const DtypeNames& one : kDtypes) {
    if (one.dtype == dtype) return &one;
  }
  return nullptr;
}

std::optional<torch::ScalarType> DtypeOfPython(std::string_view name) {
  return Find(&DtypeNames::python, name);
}
std::optional<torch::ScalarType> DtypeOfStorage(std::string_view name) {
  return Find(&DtypeNames::storage, name);
}
std::optional<torch::ScalarType> DtypeOfSafetensors(std::string_view name) {
  return Find(&DtypeNames::safetensors, name);
}
std::optional<torch::ScalarType> DtypeOfNumpy(std::string_view name) {
  return Find(&DtypeNames::numpy, name);
}
std::optional<torch::ScalarType> DtypeOfOption(std::string_view name) {
  return Find(&DtypeNames::option, name);
}

std::string NamesOf(const char* DtypeNames::* column, std::string_view between) {
  std::string names;
  for (const DtypeNames& one : kDtypes) {
    if (one.*column == nullptr) continue;
    if (!names.empty()) names += between;
    names += one.*column;
  }
  return names;
}

}  // namespace athanor
