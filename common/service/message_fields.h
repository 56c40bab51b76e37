// Copies members of a described struct to and from the fields of the same name in a message: what both have needs no
// line of code. Numbers, text and maps from text to numbers are copied. Members of another type, and names that only
// one side has, are left alone.
//
//   struct Progress { int64_t step = 0; double loss = 0; };
//   BOOST_DESCRIBE_STRUCT(Progress, (), (step, loss))
//   CopyToMessage(progress, &proto);
//   CopyFromMessage(proto, &progress);
//
// Thread-safe for different messages.
#pragma once

#include <google/protobuf/message.h>

#include <boost/describe.hpp>
#include <boost/mp11.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>

namespace athanor {
namespace message_fields_internal {

using google::protobuf::FieldDescriptor;
using Numbers = std::map<std::string, double>;

// The field for a member of this type; null where there is none.
template <typename Member>
const FieldDescriptor* FieldFor(const google::protobuf::Message& message, const char* name) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr) return nullptr;
  bool fits = false;
  if constexpr (std::is_same_v<Member, Numbers>) {
    fits = field->is_map() && field->message_type()->map_key()->cpp_type() == FieldDescriptor::CPPTYPE_STRING &&
           field->message_type()->map_value()->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
  } else if (!field->is_repeated()) {
    const FieldDescriptor::CppType type = field->cpp_type();
    if constexpr (std::is_same_v<Member, std::string>) fits = type == FieldDescriptor::CPPTYPE_STRING;
    if constexpr (std::is_same_v<Member, double>) fits = type == FieldDescriptor::CPPTYPE_DOUBLE;
    if constexpr (std::is_same_v<Member, int64_t>) fits = type == FieldDescriptor::CPPTYPE_INT64;
    if constexpr (std::is_same_v<Member, int32_t>) fits = type == FieldDescriptor::CPPTYPE_INT32;
  }
  return fits ? field : nullptr;
}

template <typename Member>
void Set(google::protobuf::Message* message, const FieldDescriptor* field, const Member& value) {
  const google::protobuf::Reflection* reflection = message->GetReflection();
  if constexpr (std::is_same_v<Member, std::string>) reflection->SetString(message, field, value);
  if constexpr (std::is_same_v<Member, double>) reflection->SetDouble(message, field, value);
  if constexpr (std::is_same_v<Member, int64_t>) reflection->SetInt64(message, field, value);
  if constexpr (std::is_same_v<Member, int32_t>) reflection->SetInt32(message, field, value);
  if constexpr (std::is_same_v<Member, Numbers>) {
    reflection->ClearField(message, field);
    for (const auto& [name, number] : value) {
      google::protobuf::Message* entry = reflection->AddMessage(message, field);
      entry->GetReflection()->SetString(entry, entry->GetDescriptor()->map_key(), name);
      entry->GetReflection()->SetDouble(entry, entry->GetDescriptor()->map_value(), number);
    }
  }
}

template <typename Member>
void Get(const google::protobuf::Message& message, const FieldDescriptor* field, Member* value) {
  const google::protobuf::Reflection* reflection = message.GetReflection();
  if constexpr (std::is_same_v<Member, std::string>) *value = reflection->GetString(message, field);
  if constexpr (std::is_same_v<Member, double>) *value = reflection->GetDouble(message, field);
  if constexpr (std::is_same_v<Member, int64_t>) *value = reflection->GetInt64(message, field);
  if constexpr (std::is_same_v<Member, int32_t>) *value = reflection->GetInt32(message, field);
  if constexpr (std::is_same_v<Member, Numbers>) {
    value->clear();
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      const google::protobuf::Message& entry = reflection->GetRepeatedMessage(message, field, i);
      (*value)[entry.GetReflection()->GetString(entry, entry.GetDescriptor()->map_key())] =
          entry.GetReflection()->GetDouble(entry, entry.GetDescriptor()->map_value());
    }
  }
}

template <typename T>
using MembersOf = boost::describe::describe_members<T, boost::describe::mod_public>;

}  // namespace message_fields_internal

template <typename T>
void CopyToMessage(const T& from, google::protobuf::Message* to) {
  boost::mp11::mp_for_each<message_fields_internal::MembersOf<T>>([&](auto member) {
    using Member = std::remove_cvref_t<decltype(from.*member.pointer)>;
    if (const auto* field = message_fields_internal::FieldFor<Member>(*to, member.name))
      message_fields_internal::Set<Member>(to, field, from.*member.pointer);
  });
}

template <typename T>
void CopyFromMessage(const google::protobuf::Message& from, T* to) {
  boost::mp11::mp_for_each<message_fields_internal::MembersOf<T>>([&](auto member) {
    using Member = std::remove_cvref_t<decltype(to->*member.pointer)>;
    if (const auto* field = message_fields_internal::FieldFor<Member>(from, member.name))
      message_fields_internal::Get<Member>(from, field, &(to->*member.pointer));
  });
}

}  // namespace athanor
