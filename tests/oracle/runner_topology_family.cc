// Axes, coordinates and reduction domains of ParallelTopology; the share of updates of a training split.
#include "athanor/data/step_budget.h"
#include "athanor/parallel/parallel_topology.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

using Axes = std::map<std::string, int64_t>;

std::string Same(const nlohmann::json& expected, const nlohmann::json& found, const std::string& what) {
  return expected == found ? "" : what + ": expected " + expected.dump() + ", found " + found.dump();
}

std::string CheckRank(const nlohmann::json& expected, const ParallelTopology& topology) {
  const int64_t rank = expected.at("rank").get<int64_t>();
  const std::string place = "rank " + std::to_string(rank);
  const Axes coordinates = topology.Coordinates(rank);
  const auto back = topology.RankAt(coordinates);
  if (!back.ok() || *back != rank) return place + " does not come back from its coordinates";
  nlohmann::json domain_ranks = nlohmann::json::object();
  for (const auto& [domain, value] : expected.at("domain_rank").items()) {
    domain_ranks[domain] = topology.DomainRank(domain, rank);
    const auto members = topology.DomainMembers(domain, rank);
    if (members.at(static_cast<size_t>(topology.DomainRank(domain, rank))) != rank)
      return place + " is not at its own place among the members of domain " + domain;
  }
  return FirstOf({Same(expected.at("coordinates"), coordinates, place + ", coordinates"),
                  Same(expected.at("domain_rank"), domain_ranks, place + ", domain ranks")});
}

std::string Check(const nlohmann::json& test, const nlohmann::json& domains) {
  const auto topology = ParallelTopology::Create(test.at("world_size").get<int64_t>(), test.at("axes").get<Axes>());
  if (test.contains("error") && !test["error"].is_null()) {
    return absl::IsInvalidArgument(topology.status()) ? "" : "was accepted; expected: " + test["error"].dump();
  }
  if (!topology.ok()) return topology.status().ToString();
  nlohmann::json axes = nlohmann::json::object(), degrees = nlohmann::json::object();
  for (const absl::string_view axis : ParallelTopology::kAxes) axes[std::string(axis)] = topology->degree(axis);
  for (const auto& [domain, members] : domains.items()) degrees[domain] = topology->DomainDegree(domain);
  std::string text = FirstOf({Same(test.at("resolved_axes"), axes, "axes"),
                              Same(test.at("mesh_shape"), topology->degrees(), "mesh shape"),
                              Same(test.at("domain_degree"), degrees, "domain degrees")});
  for (const nlohmann::json& rank : test.at("ranks")) text = FirstOf({text, CheckRank(rank, *topology)});
  for (const nlohmann::json& query : test.value("rank_from_coordinates", nlohmann::json::array())) {
    const auto rank = topology->RankAt(query.at("coordinates").get<Axes>());
    if (!rank.ok()) return rank.status().ToString();
    text = FirstOf({text, Same(query.at("rank"), *rank, "rank at " + query["coordinates"].dump())});
  }
  return text;
}

// What the file says outside of its cases.
std::string CheckHeader(const nlohmann::json& file) {
  std::vector<std::string> order;
  for (const absl::string_view axis : ParallelTopology::kAxes) order.emplace_back(axis);
  std::string text = Same(file.value("axis_order", nlohmann::json(order)), order, "axis_order");
  for (const auto& [domain, axes] : file.at("domains").items()) {
    text = FirstOf({text, Same(axes, ParallelTopology::DomainAxes(domain), "axes of domain " + domain)});
  }
  for (const nlohmann::json& row : file.value("step_mode_split_budget", nlohmann::json::array())) {
    const auto& length = row.at("loader_length");
    const int64_t budget =
        SplitStepBudget(row.at("remaining_steps").get<int64_t>(), row.at("remaining_splits").get<int64_t>(),
                        length.is_null() ? std::nullopt : std::optional<int64_t>(length.get<int64_t>()),
                        row.at("accum_steps").get<int64_t>());
    text = FirstOf({text, Same(row.at("budget"), budget, row.dump())});
  }
  return text;
}

void Replay(const nlohmann::json& file, Report& report) {
  // Counted only when it fails: the number of passed cases is that of the file.
  if (const std::string text = CheckHeader(file); !text.empty()) report.Case("(header)", [&] { return text; });
  for (const nlohmann::json& test : file.at("cases")) {
    report.Case(test.at("name").get<std::string>(), [&] { return Check(test, file.at("domains")); });
  }
}

ATHANOR_ORACLE_FAMILY(runner_topology, Replay);

}  // namespace
}  // namespace athanor::oracle
