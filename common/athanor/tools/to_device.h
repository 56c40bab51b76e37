// Moves everything that holds tensors to a device: tensors, nested tensors, types derived from torch::Tensor, batches,
// and optionals, pairs, tuples, vectors, maps of what can be moved. Other types are asked for `to(device,
// non_blocking)`, `to(device)` or `To(device)`, which must give the type back; anything else comes back as it is.
//
//   std::map<std::string, std::vector<torch::Tensor>> features = ToDevice(std::move(batch_features), torch::kCUDA);
//
// The structure is rebuilt, undefined tensors stay undefined, numbers (NestedValue) stay numbers. With `non_blocking`
// copies from pinned memory are queued on the device's current stream.
#pragma once

#include <torch/torch.h>

#include <concepts>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "athanor/data/batch_device.h"
#include "athanor/nested/pack.h"

namespace athanor {

inline torch::Tensor ToDevice(const torch::Tensor& tensor, torch::Device device, bool non_blocking = true) {
  return tensor.defined() ? tensor.to(device, non_blocking) : tensor;
}

template <class T>
T ToDevice(const T& value, torch::Device device, bool non_blocking = true);

namespace to_device_internal {

template <class T>
concept Movable = requires(const T& value, torch::Device device) {
  { value.To(device) } -> std::convertible_to<T>;
};
template <class T>
concept MovableAsTensors = requires(const T& value, torch::Device device) {
  { value.to(device) } -> std::convertible_to<T>;
};
template <class T>
concept MovableWithoutWaiting = requires(const T& value, torch::Device device) {
  { value.to(device, true) } -> std::convertible_to<T>;
};

template <class T>
struct Mover {
  static T Move(const T& value, torch::Device device, bool non_blocking) {
    if constexpr (std::derived_from<T, torch::Tensor>) {
      return value.defined() ? T(value.to(device, non_blocking)) : value;
    } else if constexpr (Movable<T>) {
      return value.To(device);
    } else if constexpr (MovableWithoutWaiting<T>) {
      return value.to(device, non_blocking);
    } else if constexpr (MovableAsTensors<T>) {
      return value.to(device);
    } else {
      return value;
    }
  }
};

template <>
struct Mover<NestedValue> {
  static NestedValue Move(const NestedValue& value, torch::Device device, bool non_blocking) {
    if (value.is_nested()) return value.nested().to(device, non_blocking);
    if (nested::IsNumber(value) || !value.dense().defined()) return value;
    return value.dense().to(device, non_blocking);
  }
};

template <class T>
struct Mover<std::optional<T>> {
  static std::optional<T> Move(const std::optional<T>& value, torch::Device device, bool non_blocking) {
    return value ? std::optional<T>(ToDevice(*value, device, non_blocking)) : std::nullopt;
  }
};

template <class T>
struct Mover<std::vector<T>> {
  static std::vector<T> Move(const std::vector<T>& values, torch::Device device, bool non_blocking) {
    std::vector<T> moved;
    moved.reserve(values.size());
    for (const T& value : values) moved.push_back(ToDevice(value, device, non_blocking));
    return moved;
  }
};

template <class Key, class T>
struct Mover<std::map<Key, T>> {
  static std::map<Key, T> Move(const std::map<Key, T>& values, torch::Device device, bool non_blocking) {
    std::map<Key, T> moved;
    for (const auto& [key, value] : values) moved.emplace(key, ToDevice(value, device, non_blocking));
    return moved;
  }
};

template <class A, class B>
struct Mover<std::pair<A, B>> {
  static std::pair<A, B> Move(const std::pair<A, B>& value, torch::Device device, bool non_blocking) {
    return {ToDevice(value.first, device, non_blocking), ToDevice(value.second, device, non_blocking)};
  }
};

template <class... Items>
struct Mover<std::tuple<Items...>> {
  static std::tuple<Items...> Move(const std::tuple<Items...>& value, torch::Device device, bool non_blocking) {
    return std::apply(
        [&](const Items&... items) { return std::tuple<Items...>(ToDevice(items, device, non_blocking)...); }, value);
  }
};

}  // namespace to_device_internal

template <class T>
T ToDevice(const T& value, torch::Device device, bool non_blocking) {
  return to_device_internal::Mover<T>::Move(value, device, non_blocking);
}

}  // namespace athanor
