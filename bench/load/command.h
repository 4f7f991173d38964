/* The subcommands.  ARGV[0] is the subcommand's name.  Each returns the process's exit status: not 0 if anything failed, also a request. */
#ifndef BENCH_LOAD_COMMAND_H
#define BENCH_LOAD_COMMAND_H

int command_run(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_ramp(int argc, char **argv);
int command_compare(int argc, char **argv);

#endif
