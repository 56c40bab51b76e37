// Life cycles as constexpr tables of (from, trigger) -> to, checked at compile time. Each machine's file is its table
// first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace athanor::core {

template <typename State, typename Trigger>
struct TransitionRow {
  State from;
  Trigger trigger;
  State to;
};

// The state that `trigger` leads to, or nothing when the pair is not in the table.
template <typename State, typename Trigger, size_t N>
constexpr std::optional<State> Next(const std::array<TransitionRow<State, Trigger>, N>& table, State from,
                                    Trigger trigger) {
  for (const auto& row : table) {
    if (row.from == from && row.trigger == trigger) return row.to;
  }
  return std::nullopt;
}

// Moves `state`. An impossible transition changes nothing: false.
template <typename State, typename Trigger, size_t N>
constexpr bool Move(const std::array<TransitionRow<State, Trigger>, N>& table, State& state, Trigger trigger) {
  const std::optional<State> next = Next(table, state, trigger);
  if (next.has_value()) state = *next;
  return next.has_value();
}

// No (state, trigger) pair stands twice.
template <typename State, typename Trigger, size_t N>
constexpr bool Deterministic(const std::array<TransitionRow<State, Trigger>, N>& table) {
  for (size_t i = 0; i < N; ++i) {
    for (size_t j = i + 1; j < N; ++j) {
      if (table[i].from == table[j].from && table[i].trigger == table[j].trigger) return false;
    }
  }
  return true;
}

// Nothing leaves `state`.
template <typename State, typename Trigger, size_t N>
constexpr bool Terminal(const std::array<TransitionRow<State, Trigger>, N>& table, State state) {
  for (const auto& row : table) {
    if (row.from == state) return false;
  }
  return true;
}

}  // namespace athanor::core
