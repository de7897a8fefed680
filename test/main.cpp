// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// doctest is content where a filter leaves nothing to do; a test that runs no case is an error here. Where a program
// has the sources of several tests (TOGETHER in CMakeLists.txt), so is a case that doctest takes for a header's: none
// of the tests would run it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <iostream>
#include <string>
#include <string_view>

namespace {

bool nothing_ran = false;
std::string of_a_header;

void look(doctest::TestCaseData const& c) {
  if (!std::string_view(c.m_file.c_str()).ends_with(".cpp")) of_a_header = c.m_name;
}

struct counts : doctest::IReporter {
  explicit counts(doctest::ContextOptions const&) {}
  void report_query(doctest::QueryData const&) override {}
  void test_run_start() override {}
  void test_run_end(doctest::TestRunStats const& run) override { nothing_ran = run.numTestCasesPassingFilters == 0; }
  void test_case_start(doctest::TestCaseData const& c) override { look(c); }
  void test_case_reenter(doctest::TestCaseData const&) override {}
  void test_case_end(doctest::CurrentTestCaseStats const&) override {}
  void test_case_exception(doctest::TestCaseException const&) override {}
  void subcase_start(doctest::SubcaseSignature const&) override {}
  void subcase_end() override {}
  void log_assert(doctest::AssertData const&) override {}
  void log_message(doctest::MessageData const&) override {}
  void test_case_skipped(doctest::TestCaseData const& c) override { look(c); }
};
REGISTER_LISTENER("counts", 1, counts);

}  // namespace

int main(int argc, char** argv) {
  int failed = doctest::Context(argc, argv).run();
  std::string filters;
  for (int i = 1; i < argc; ++i) (filters += ' ') += argv[i];
  if (nothing_ran) {
    std::cerr << "no test case of " << argv[0] << " passes the filters" << filters << '\n';
    failed = 1;
  }
  if (filters.find(" --source-file=") != filters.npos && !of_a_header.empty()) {
    std::cerr << "no source of " << argv[0] << " has the test case \"" << of_a_header << "\": a header has it\n";
    failed = 1;
  }
  return failed;
}
