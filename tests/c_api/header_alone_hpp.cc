// That the C++ header needs nothing before it.
#include "flashelm/flashelm.hpp"
