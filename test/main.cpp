// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// doctest is content where a filter leaves nothing to do; a test that runs no case is an error here.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <iostream>

namespace {

bool nothing_ran = false;

struct counts : doctest::IReporter {
  explicit counts(doctest::ContextOptions const&) {}
  void report_query(doctest::QueryData const&) override {}
  void test_run_start() override {}
  void test_run_end(doctest::TestRunStats const& run) override { nothing_ran = run.numTestCasesPassingFilters == 0; }
  void test_case_start(doctest::TestCaseData const&) override {}
  void test_case_reenter(doctest::TestCaseData const&) override {}
  void test_case_end(doctest::CurrentTestCaseStats const&) override {}
  void test_case_exception(doctest::TestCaseException const&) override {}
  void subcase_start(doctest::SubcaseSignature const&) override {}
  void subcase_end() override {}
  void log_assert(doctest::AssertData const&) override {}
  void log_message(doctest::MessageData const&) override {}
  void test_case_skipped(doctest::TestCaseData const&) override {}
};
REGISTER_LISTENER("counts", 1, counts);

}  // namespace

int main(int argc, char** argv) {
  int const failed = doctest::Context(argc, argv).run();
  if (!nothing_ran) return failed;
  std::cerr << "no test case of this program passes the filters of";
  for (int i = 0; i < argc; ++i) std::cerr << ' ' << argv[i];
  std::cerr << '\n';
  return 1;
}
