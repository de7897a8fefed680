# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# std_includes.awk HEADERS…: prints each use of a name of the standard library whose header the file does not include
# itself: another header that brings it by chance may stop to. Names are spelled std::, but for macros; and some of the
# language's own constructs need a header.
function names(header, list,   i, n, one) {
  n = split(list, one, " ")
  for (i = 1; i <= n; ++i) where[one[i]] = where[one[i]] " " header
}
function several(headers, list,   i, n, one) {
  n = split(headers, one, " ")
  for (i = 1; i <= n; ++i) names(one[i], list)
}
function finish(   name, i, n, given, found) {
  for (name in used) {
    n = split(where[name], given, " ")
    found = 0
    for (i = 1; i <= n; ++i) found += (given[i] in has)
    if (!found)
      print file ":" used[name] ": " (name in matches ? name : "std::" name) " needs #include <" given[1] ">"
  }
  split("", used)
  split("", has)
}
# What is no name of std::, as the message spells it; `pattern` matches it in a line of code without strings.
function construct(headers, name, pattern) {
  where[name] = headers
  matches[name] = pattern
}
# The same of a macro.
function macro(header, name, pattern) { construct(header, name, "(^|[^_[:alnum:]])(" pattern ")([^_[:alnum:]]|$)") }
BEGIN {
  macro("cstdint", "INT..._MAX", "(U?INT(_LEAST|_FAST)?[0-9]+|U?INTPTR|U?INTMAX|PTRDIFF|SIZE)_(MIN|MAX)")
  macro("cstdint", "INT..._C", "U?INT([0-9]+|MAX)_C")
  macro("climits", "INT_MAX", "CHAR_BIT|(U?CHAR|SCHAR|U?SHRT|U?INT|U?LONG|U?LLONG)_(MIN|MAX)")
  macro("cfloat", "FLT_MAX", "(FLT|L?DBL)_[A-Z_]+")
  macro("cerrno", "errno", "errno")
  macro("cassert", "assert", "assert")
  macro("cstddef", "offsetof", "offsetof")
  macro("csignal", "SIG...", "SIG(INT|TERM|HUP|KILL|SEGV|BUS|ABRT|_DFL|_IGN)")
  macro("typeinfo", "typeid", "typeid")
  # Headers that bring these two, as the standard says.
  comparing = "deque iterator list map memory optional ranges string_view system_error thread tuple variant"
  construct("compare array set string utility vector " comparing, "<=>", "<=>")
  listing = "algorithm deque list map random unordered_map unordered_set"
  construct("initializer_list array set string utility vector " listing, "for (... : {...})", "for *[(].*[^:]: *[{]")
  names("algorithm", "sort stable_sort nth_element copy copy_n copy_if fill fill_n min max minmax clamp find")
  names("algorithm", "set_intersection find_if any_of all_of none_of transform equal lower_bound upper_bound max_element min_element")
  names("algorithm", "remove_if reverse unique count count_if rotate partition is_sorted for_each binary_search")
  names("algorithm", "mismatch generate replace push_heap pop_heap includes ranges")
  names("array", "array to_array")
  names("atomic", "atomic atomic_ref atomic_flag atomic_thread_fence memory_order memory_order_relaxed")
  names("atomic", "memory_order_acquire memory_order_release memory_order_seq_cst")
  names("bit", "rotr rotl bit_cast popcount countr_zero countl_zero bit_width has_single_bit bit_ceil endian")
  names("charconv", "from_chars to_chars chars_format from_chars_result to_chars_result")
  names("chrono", "chrono chrono_literals")
  names("cmath", "ilogb expm1 log1p exp2 abs sqrt pow exp log log2 fabs isnan isfinite isinf floor ceil lround llround")
  names("cmath", "round trunc tanh cos sin hypot fma ldexp frexp nextafter cbrt fmod copysign")
  names("concepts", "same_as convertible_to integral floating_point invocable derived_from constructible_from")
  names("concepts", "signed_integral unsigned_integral copy_constructible move_constructible default_initializable")
  names("concepts", "semiregular regular predicate assignable_from copyable movable equality_comparable")
  names("condition_variable", "condition_variable")
  several("cstddef cstring cstdio cstdlib", "size_t")
  names("cstddef", "to_integer ptrdiff_t byte max_align_t nullptr_t")
  names("cstdint", "uintmax_t int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t uintptr_t intptr_t")
  names("cstdio", "fgets printf fprintf snprintf fputs FILE fopen fclose fflush stdout stderr rename remove perror")
  names("cstdio", "fread fwrite")
  names("cstdlib", "abs strtoull atol getenv strtol strtod abort exit malloc free aligned_alloc atoi llabs")
  names("cstring", "strrchr strcpy memcpy memset memcmp memmove strlen strcmp strerror strncmp strchr")
  names("ctime", "time_t tm strftime gmtime time localtime mktime")
  names("deque", "deque")
  names("exception", "exception exception_ptr current_exception rethrow_exception terminate uncaught_exceptions")
  names("exception", "make_exception_ptr")
  names("stdexcept", "runtime_error logic_error out_of_range invalid_argument length_error")
  names("filesystem", "filesystem")
  names("fstream", "ifstream ofstream fstream")
  names("functional", "function invoke hash less greater plus minus multiplies equal_to ref cref reference_wrapper")
  names("functional", "bind_front identity bit_or")
  names("initializer_list", "initializer_list")
  several("ios iosfwd fstream istream ostream iostream", "streamsize streamoff ios basic_streambuf basic_ostream")
  several("tuple utility array span ranges", "get")
  several("iterator array vector span string string_view map", "size begin end data")
  several("vector string list deque map set", "erase_if erase")
  names("iostream", "cout cerr clog cin")
  names("iterator", "back_inserter make_move_iterator next prev distance reverse_iterator advance")
  names("iterator", "istreambuf_iterator inserter forward_iterator input_iterator")
  names("limits", "numeric_limits")
  names("locale", "locale")
  names("iomanip", "setprecision setw hex")
  names("list", "list")
  names("map", "map multimap")
  names("memory", "unique_ptr shared_ptr make_unique make_shared weak_ptr addressof destroy_at construct_at")
  names("memory", "uninitialized_copy allocator enable_shared_from_this static_pointer_cast assume_aligned align")
  names("memory", "to_address allocator_traits")
  names("mutex", "try_to_lock defer_lock mutex lock_guard unique_lock scoped_lock once_flag call_once")
  names("new", "nothrow_t align_val_t nothrow bad_alloc launder bad_array_new_length")
  names("numbers", "numbers")
  names("numeric", "accumulate iota inner_product gcd lcm reduce midpoint")
  names("optional", "optional nullopt make_optional nullopt_t")
  several("iosfwd ostream iostream", "ostream")
  several("ostream iostream", "endl flush")
  several("iosfwd istream iostream", "istream")
  names("random", "mt19937 mt19937_64 uniform_real_distribution normal_distribution random_device")
  names("set", "set multiset")
  names("span", "span dynamic_extent as_bytes as_writable_bytes")
  names("sstream", "stringstream ostringstream istringstream")
  names("string", "string to_string stoi stol stod getline basic_string char_traits")
  names("string_view", "string_view basic_string_view")
  names("system_error", "error_code system_error errc generic_category system_category make_error_code")
  names("thread", "thread this_thread jthread")
  names("tuple", "tuple tie apply tuple_cat make_tuple ignore forward_as_tuple")
  several("tuple utility array", "tuple_size tuple_element_t tuple_size_v tuple_element")
  names("type_traits", "is_move_assignable_v is_member_pointer_v is_same_v is_same enable_if_t remove_cvref_t")
  names("type_traits", "remove_const_t remove_reference_t conditional_t conditional decay_t true_type false_type")
  names("type_traits", "bool_constant integral_constant common_type_t type_identity type_identity_t")
  names("type_traits", "underlying_type_t is_constant_evaluated void_t is_arithmetic_v is_integral_v")
  names("type_traits", "is_floating_point_v is_trivially_copyable_v is_base_of_v is_convertible_v is_invocable_v")
  names("type_traits", "is_invocable_r_v is_void_v is_empty_v is_enum_v is_const_v is_reference_v")
  names("type_traits", "is_lvalue_reference_v is_default_constructible_v is_constructible_v is_pointer_v is_class_v")
  names("type_traits", "is_final_v is_signed_v is_unsigned_v is_nothrow_move_constructible_v")
  names("type_traits", "is_copy_constructible_v is_aggregate_v invoke_result_t make_unsigned_t make_signed_t")
  names("type_traits", "remove_pointer_t add_const_t is_function_v is_member_function_pointer_v")
  names("type_traits", "is_member_object_pointer_v")
  names("unordered_map", "unordered_map")
  names("unordered_set", "unordered_set")
  names("utility", "make_integer_sequence move forward exchange pair swap declval index_sequence")
  names("utility", "make_index_sequence integer_sequence in_place index_sequence_for as_const make_pair cmp_less")
  names("utility", "in_place_t unreachable piecewise_construct")
  names("variant", "variant visit monostate holds_alternative get_if")
  names("vector", "vector")
}
FNR == 1 {
  if (file != "") finish()
  file = FILENAME
}
/^ *# *include *</ {
  name = $0
  sub(/^[^<]*</, "", name)
  sub(/>.*/, "", name)
  has[name] = 1
}
{
  line = $0
  sub(/\/\/.*/, "", line)
  while (match(line, /std::[a-z_0-9]+/)) {
    name = substr(line, RSTART + 5, RLENGTH - 5)
    if (name in where && !(name in used)) used[name] = FNR
    else if (!(name in where) && !(name in unknown)) unknown[name] = file ":" FNR
    line = substr(line, RSTART + RLENGTH)
  }
  line = $0
  sub(/\/\/.*/, "", line)
  if (line ~ /^ *# *include/) next
  gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
  for (name in matches)
    if (!(name in used) && line ~ matches[name]) used[name] = FNR
}
END {
  finish()
  for (name in unknown) print unknown[name] ": std::" name " is not in the table of " "std_includes.awk"
}
