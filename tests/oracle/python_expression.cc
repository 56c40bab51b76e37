// A parser and evaluator of the subset of Python in which recorded operations are written: literals, names, attributes,
// calls, indexing with slices, operators, list comprehensions and simple assignments.
#include <cctype>
#include <memory>

#include "tests/oracle/python_value.h"

namespace athanor::oracle {
namespace {

struct Node {
  enum Kind {
    kLiteral,
    kName,
    kAttribute,
    kCall,
    kIndex,
    kList,
    kDict,
    kUnary,
    kBinary,
    kSlice,
    kEach,
    kStar,
    kChoice
  } kind;
  std::string text;  // name, operator, attribute, loop variable
  Value value;
  std::vector<std::unique_ptr<Node>> children;
  std::vector<std::string> keys;  // of calls ("" = by position) and dicts
};
using NodePtr = std::unique_ptr<Node>;

NodePtr Make(Node::Kind kind, std::string text = "") {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  node->text = std::move(text);
  return node;
}

struct Token {
  enum Kind { kEnd, kNumber, kText, kName, kSymbol } kind = kEnd;
  std::string text;
};

std::vector<Token> Tokens(const std::string& source) {
  std::vector<Token> tokens;
  size_t at = 0;
  const auto name = [&](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  while (at < source.size()) {
    const char c = source[at];
    const size_t begin = at;
    if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      ++at;
    } else if (std::isdigit(static_cast<unsigned char>(c)) != 0 ||
               (c == '.' && at + 1 < source.size() && std::isdigit(static_cast<unsigned char>(source[at + 1])) != 0)) {
      while (at < source.size() && (name(source[at]) || source[at] == '.' ||
                                    ((source[at] == '-' || source[at] == '+') && source[at - 1] == 'e')))
        ++at;
      tokens.push_back({Token::kNumber, source.substr(begin, at - begin)});
    } else if (name(c)) {
      while (at < source.size() && name(source[at])) ++at;
      tokens.push_back({Token::kName, source.substr(begin, at - begin)});
    } else if (c == '\'' || c == '"') {
      at = source.find(c, begin + 1) + 1;
      if (at == 0) throw std::invalid_argument("unterminated text in " + source);
      tokens.push_back({Token::kText, source.substr(begin + 1, at - begin - 2)});
    } else {
      static const char* const kLong[] = {"...", "**=", "//=", "**", "//", "==", "!=", "<=", ">=",
                                          "+=",  "-=",  "*=",  "/=", "%=", "<<", ">>", "&=", "|="};
      std::string symbol(1, c);
      for (const char* candidate : kLong) {
        if (source.compare(at, std::string(candidate).size(), candidate) == 0) {
          symbol = candidate;
          break;
        }
      }
      at += symbol.size();
      tokens.push_back({Token::kSymbol, symbol});
    }
  }
  tokens.push_back({});
  return tokens;
}

class Parser {
 public:
  explicit Parser(const std::string& source) : source_(source), tokens_(Tokens(source)) {}

  // "a if condition else b", and what binds tighter.
  NodePtr Expression() {
    NodePtr first = Binary(0);
    if (!Take("if")) return first;
    NodePtr choice = Make(Node::kChoice);
    choice->children.push_back(Binary(0));
    Expect("else");
    choice->children.push_back(std::move(first));
    choice->children.push_back(Expression());
    return choice;
  }
  NodePtr Whole() {
    NodePtr node = Tuple();
    if (!AtEnd()) Fail("something follows");
    return node;
  }
  // "target = value" or "target += value": target, operator ("" for none), value.
  struct Statement {
    NodePtr target, value;
    std::string symbol;
  };
  Statement OneStatement() {
    Statement statement;
    statement.value = Tuple();
    for (const char* symbol : {"=", "+=", "-=", "*=", "/=", "//=", "%=", "**=", "&=", "|="}) {
      if (!Take(symbol)) continue;
      statement.target = std::move(statement.value);
      statement.symbol = std::string(symbol) == "=" ? "" : std::string(symbol, std::string(symbol).size() - 1);
      statement.value = Tuple();
    }
    if (!AtEnd()) Fail("something follows");
    return statement;
  }

 private:
  bool AtEnd() const { return tokens_[at_].kind == Token::kEnd; }
  bool Is(const std::string& text) const {
    return tokens_[at_].text == text && (tokens_[at_].kind == Token::kSymbol || tokens_[at_].kind == Token::kName);
  }
  bool Take(const std::string& text) {
    if (!Is(text)) return false;
    ++at_;
    return true;
  }
  void Expect(const std::string& text) {
    if (!Take(text)) Fail("expected '" + text + "'");
  }
  [[noreturn]] void Fail(const std::string& why) const {
    throw std::invalid_argument("cannot read '" + source_ + "': " + why + " at '" + tokens_[at_].text + "'");
  }

  bool TakeOperator(const std::string& symbol) {
    if (symbol != "not in") return Take(symbol);
    if (!Is("not") || at_ + 1 >= tokens_.size() || tokens_[at_ + 1].text != "in") return false;
    at_ += 2;
    return true;
  }

  // What follows an expression in a list, or in the arguments of a call: "for name in expression if condition".
  NodePtr Each(NodePtr body) {
    NodePtr each = Make(Node::kEach, tokens_[at_++].text);
    Expect("in");
    each->children.push_back(std::move(body));
    each->children.push_back(Binary(0));
    if (Take("if")) each->children.push_back(Binary(0));
    return each;
  }

  NodePtr Tuple() {
    NodePtr first = Expression();
    if (!Is(",")) return first;
    NodePtr list = Make(Node::kList);
    list->children.push_back(std::move(first));
    while (Take(",") && !AtEnd()) list->children.push_back(Expression());
    return list;
  }

  // From loosely to tightly binding.
  NodePtr Binary(size_t level) {
    static const std::vector<std::vector<std::string>> kLevels = {
        {"or"},       {"and"},    {"==", "!=", "<", "<=", ">", ">=", "is", "in", "not in"},
        {"|"},        {"^"},      {"&"},
        {"<<", ">>"}, {"+", "-"}, {"*", "/", "//", "%", "@"}};
    if (level == kLevels.size()) return Unary();
    NodePtr left = Binary(level + 1);
    for (bool more = true; more;) {
      more = false;
      for (const std::string& symbol : kLevels[level]) {
        if (!TakeOperator(symbol)) continue;
        const bool negated = symbol == "is" && Take("not");
        NodePtr node = Make(Node::kBinary, negated ? "is not" : symbol);
        node->children.push_back(std::move(left));
        node->children.push_back(Binary(level + 1));
        left = std::move(node);
        more = true;
        break;
      }
    }
    return left;
  }

  NodePtr Unary() {
    for (const char* symbol : {"-", "+", "~", "not"}) {
      if (!Take(symbol)) continue;
      NodePtr node = Make(Node::kUnary, symbol);
      node->children.push_back(Unary());
      return node;
    }
    NodePtr base = Postfix(Atom());
    if (!Take("**")) return base;
    NodePtr node = Make(Node::kBinary, "**");
    node->children.push_back(std::move(base));
    node->children.push_back(Unary());
    return node;
  }

  NodePtr Postfix(NodePtr node) {
    while (true) {
      if (Take(".")) {
        NodePtr attribute = Make(Node::kAttribute, tokens_[at_++].text);
        attribute->children.push_back(std::move(node));
        node = std::move(attribute);
      } else if (Take("(")) {
        NodePtr call = Make(Node::kCall);
        call->children.push_back(std::move(node));
        call->keys.emplace_back();
        while (!Take(")")) {
          std::string key;
          if (tokens_[at_].kind == Token::kName && tokens_[at_ + 1].text == "=") {
            key = tokens_[at_].text;
            at_ += 2;
          }
          const bool star = key.empty() && Take("*");
          NodePtr argument = Expression();
          if (Take("for")) argument = Each(std::move(argument));
          if (star) {
            NodePtr spread = Make(Node::kStar);
            spread->children.push_back(std::move(argument));
            argument = std::move(spread);
          }
          call->children.push_back(std::move(argument));
          call->keys.push_back(key);
          if (!Is(")")) Expect(",");
        }
        node = std::move(call);
      } else if (Take("[")) {
        NodePtr index = Make(Node::kIndex);
        index->children.push_back(std::move(node));
        index->children.push_back(IndexItems());
        Expect("]");
        node = std::move(index);
      } else {
        return node;
      }
    }
  }

  NodePtr IndexItems() {
    NodePtr first = IndexItem();
    if (!Is(",")) return first;
    NodePtr items = Make(Node::kList, "tuple");
    items->children.push_back(std::move(first));
    while (Take(",") && !Is("]")) items->children.push_back(IndexItem());
    return items;
  }

  NodePtr IndexItem() {
    NodePtr slice = Make(Node::kSlice);
    bool colon = false;
    for (int part = 0; part < 3; ++part) {
      if (Is(":") || Is("]") || Is(","))
        slice->children.push_back(Make(Node::kLiteral));
      else
        slice->children.push_back(Expression());
      if (!Take(":")) break;
      colon = true;
    }
    return colon ? std::move(slice) : std::move(slice->children[0]);
  }

  NodePtr Atom() {
    const Token token = tokens_[at_++];
    if (token.kind == Token::kNumber) {
      NodePtr node = Make(Node::kLiteral);
      if (token.text.find_first_of(".e") != std::string::npos)
        node->value = std::stod(token.text);
      else
        node->value = int64_t{std::stoll(token.text)};
      return node;
    }
    if (token.kind == Token::kText || token.text == "..." || token.text == "True" || token.text == "False" ||
        token.text == "None") {
      NodePtr node = Make(Node::kLiteral);
      if (token.kind == Token::kText)
        node->value = token.text;
      else if (token.text == "...")
        node->value = Dots{};
      else if (token.text != "None")
        node->value = token.text == "True";
      return node;
    }
    if (token.kind == Token::kName) return Make(Node::kName, token.text);
    if (token.text == "(" || token.text == "[") return ListUntil(token.text == "(" ? ")" : "]");
    if (token.text == "{") return DictUntilBrace();
    --at_;
    Fail("unexpected");
  }

  NodePtr ListUntil(const std::string& close) {
    NodePtr list = Make(Node::kList, close == ")" ? "tuple" : "");
    bool comma = false;
    while (!Take(close)) {
      list->children.push_back(Expression());
      if (Take("for")) {
        NodePtr each = Each(std::move(list->children[0]));
        Expect(close);
        return each;
      }
      if (!Is(close)) {
        Expect(",");
        comma = true;
      }
    }
    if (close == ")" && list->children.size() == 1 && !comma) return std::move(list->children[0]);
    return list;
  }

  NodePtr DictUntilBrace() {
    NodePtr dict = Make(Node::kDict);
    while (!Take("}")) {
      dict->keys.push_back(tokens_[at_++].text);
      Expect(":");
      dict->children.push_back(Expression());
      if (!Is("}")) Expect(",");
    }
    return dict;
  }

  std::string source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

class Evaluator {
 public:
  explicit Evaluator(std::map<std::string, Value>& names) : names_(names) {}

  Value Run(const Node& node) {
    switch (node.kind) {
      case Node::kLiteral:
        return node.value;
      case Node::kName:
        return Name(node.text);
      case Node::kAttribute:
        return Attribute(Run(*node.children[0]), node.text);
      case Node::kCall:
        return RunCall(node);
      case Node::kIndex:
        return Item(Run(*node.children[0]), Run(*node.children[1]));
      case Node::kUnary:
        return UnaryOperator(node.text, Run(*node.children[0]));
      case Node::kChoice:
        return Run(*node.children[Truth(Run(*node.children[0])) ? 1 : 2]);
      case Node::kBinary:
        return BinaryOperator(node.text, Run(*node.children[0]), Run(*node.children[1]));
      case Node::kSlice:
        return RunSlice(node);
      case Node::kEach:
        return RunEach(node);
      case Node::kDict: {
        auto dict = std::make_shared<Dict>();
        for (size_t i = 0; i < node.keys.size(); ++i) dict->emplace_back(node.keys[i], Run(*node.children[i]));
        return dict;
      }
      default: {
        List list;
        for (const NodePtr& child : node.children) list.push_back(Run(*child));
        Value value(std::move(list));
        value.tuple = node.text == "tuple";
        return value;
      }
    }
  }

  void Assign(const Node& target, const Value& value) {
    if (target.kind == Node::kName) {
      names_[target.text] = value;
      return;
    }
    if (target.kind == Node::kList) {
      for (size_t i = 0; i < target.children.size(); ++i) Assign(*target.children[i], value.list().at(i));
      return;
    }
    Value object = Run(*target.children[0]);
    if (target.kind == Node::kAttribute)
      SetAttribute(object, target.text, value);
    else
      SetItem(object, Run(*target.children[1]), value);
    if (target.children[0]->kind == Node::kName) names_[target.children[0]->text] = object;
  }

 private:
  Value Name(const std::string& name) {
    if (const auto found = names_.find(name); found != names_.end()) return found->second;
    return FunctionValue{name, nullptr};
  }

  Value RunSlice(const Node& node) {
    SliceValue slice;
    std::optional<int64_t>* const parts[] = {&slice.start, &slice.stop, &slice.step};
    for (size_t i = 0; i < node.children.size(); ++i) {
      const Value part = Run(*node.children[i]);
      if (!part.none()) *parts[i] = part.get<int64_t>();
    }
    return slice;
  }

  static List Items(const Value& over) {
    if (over.is_list()) return over.list();
    List items;
    for (const torch::Tensor& one :
         over.is_nested() ? over.get<NestedTensor>().Unbind() : over.get<torch::Tensor>().unbind())
      items.emplace_back(one);
    return items;
  }

  Value RunEach(const Node& node) {
    List results;
    const Value over = Run(*node.children[1]);
    for (const Value& item : Items(over)) {
      names_[node.text] = item;
      if (node.children.size() > 2 && !Truth(Run(*node.children[2]))) continue;
      results.push_back(Run(*node.children[0]));
    }
    names_.erase(node.text);
    return results;
  }

  Value RunCall(const Node& node) {
    const Value callee = Run(*node.children[0]);
    if (!callee.is<FunctionValue>()) throw PythonError("TypeError", KindOf(callee) + " is not callable");
    const auto& function = callee.get<FunctionValue>();
    List positions;
    Dict named;
    if (function.self != nullptr) positions.push_back(*function.self);
    for (size_t i = 1; i < node.children.size(); ++i) {
      if (node.children[i]->kind == Node::kStar) {
        const Value spread = Run(*node.children[i]->children[0]);
        positions.insert(positions.end(), spread.list().begin(), spread.list().end());
      } else if (node.keys[i].empty()) {
        positions.push_back(Run(*node.children[i]));
      } else {
        named.emplace_back(node.keys[i], Run(*node.children[i]));
      }
    }
    if (function.name == "setattr" && positions.size() == 3) {
      Value object = positions[0];
      SetAttribute(object, positions[1].get<std::string>(), positions[2]);
      if (node.children[1]->kind == Node::kName) names_[node.children[1]->text] = object;
      return {};
    }
    return Call(CalledName(function, positions), positions, named);
  }

  // Python's own functions share names with LibTorch's, and functions with methods of other arguments.
  static std::string CalledName(const FunctionValue& function, const List& positions) {
    const bool method = function.self != nullptr;
    if (method && IsDefined("method." + function.name)) return "method." + function.name;
    const bool tensor = !positions.empty() && (positions[0].is_nested() || positions[0].is_tensor());
    if (!method && IsDefined("python." + function.name) && !(tensor && IsDefined(function.name)))
      return "python." + function.name;
    return function.name;
  }

  std::map<std::string, Value>& names_;
};

}  // namespace

Value Evaluate(const std::string& source, std::map<std::string, Value>& names) {
  Evaluator evaluator(names);
  std::string expression = source;
  if (source.rfind("exec:", 0) == 0) {
    const size_t arrow = source.find("=>");
    std::string statements = source.substr(5, arrow - 5);
    expression = source.substr(arrow + 2);
    while (!statements.empty()) {
      const size_t end = statements.find_first_of(";\n");
      if (statements.substr(0, end).find_first_not_of(" \t") == std::string::npos) {
        statements = end == std::string::npos ? "" : statements.substr(end + 1);
        continue;
      }
      const Parser::Statement one = Parser(statements.substr(0, end)).OneStatement();
      Value value = evaluator.Run(*one.value);
      if (one.target != nullptr) {
        if (!one.symbol.empty()) value = BinaryOperator(one.symbol + "=", evaluator.Run(*one.target), value);
        evaluator.Assign(*one.target, value);
      }
      statements = end == std::string::npos ? "" : statements.substr(end + 1);
    }
  }
  return evaluator.Run(*Parser(expression).Whole());
}

}  // namespace athanor::oracle
