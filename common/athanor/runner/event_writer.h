// The former place of athanor/runner/record/event_writer.h.
#pragma once

#include "athanor/runner/record/event_writer.h"
